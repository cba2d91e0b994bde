// What a driver reads in a cubin before it launches one of its kernels: an ELF file as NVRTC 12 and 13 write it.
//
// Read off cubins of ptxas and named as `cuobjdump -elf` names it: section .nv.info.KERNEL holds attributes, each
// {format, attribute, u16}, followed, in format 4, by that many bytes; section .nv.info the registers of each symbol.

#include <elf.h>

#define ATTRIBUTE_MAX_THREADS 0x05   // __launch_bounds__: x, y, z
#define ATTRIBUTE_KERNEL_PARAMETER 0x17  // index, u16 ordinal, u16 offset, u32 with the size from bit 18 on
#define ATTRIBUTE_REGISTERS 0x2f     // symbol, registers a thread
#define ATTRIBUTE_CLUSTER 0x3d       // __cluster_dims__: x, y, z
#define ATTRIBUTE_LARGE_PARAMETER 0x45  // the same with a whole u32, of kernels with more than 4,096 bytes of them
#define MAX_PARAMETERS 64

struct kernel {
    char name[96];
    int registers, shared, max_threads, cluster[3];  // of a thread; static bytes and most threads of a thread block
    int count, offsets[MAX_PARAMETERS], sizes[MAX_PARAMETERS], bytes;  // of its parameters
};

static const Elf64_Shdr* sections_of(const unsigned char* image) {
    return (const void*)(image + ((const Elf64_Ehdr*)image)->e_shoff);
}

static const char* section_name(const unsigned char* image, int index) {
    const Elf64_Shdr* sections = sections_of(image);
    return (const char*)image + sections[((const Elf64_Ehdr*)image)->e_shstrndx].sh_offset + sections[index].sh_name;
}

static int section_at(const unsigned char* image, const char* prefix, const char* name) {
    char wanted[160];
    snprintf(wanted, sizeof wanted, "%s%s", prefix, name);
    for (int i = 0; i < ((const Elf64_Ehdr*)image)->e_shnum; i++)
        if (!strcmp(section_name(image, i), wanted)) return i;
    return -1;
}

// 90 for sm_90 and sm_90a: an "a" or an "f" leaves no mark in the header
static int cubin_arch(const unsigned char* image) { return ((const Elf64_Ehdr*)image)->e_flags >> 8 & 0xff; }

static size_t cubin_size(const unsigned char* image) {
    const Elf64_Ehdr* head = (const void*)image;
    return head->e_shoff + (size_t)head->e_shnum * sizeof(Elf64_Shdr);
}

static void read_parameter(struct kernel* kernel, const unsigned char* value, int shift) {
    unsigned short ordinal, offset;
    unsigned packed;
    memcpy(&ordinal, value + 4, 2);
    memcpy(&offset, value + 6, 2);
    memcpy(&packed, value + 8, 4);
    if (ordinal >= MAX_PARAMETERS) return;
    kernel->offsets[ordinal] = offset;
    kernel->sizes[ordinal] = packed >> shift;
    if (ordinal >= kernel->count) kernel->count = ordinal + 1;
    if (offset + kernel->sizes[ordinal] > kernel->bytes) kernel->bytes = offset + kernel->sizes[ordinal];
}

static void read_attributes(struct kernel* kernel, const unsigned char* image, int section, unsigned symbol) {
    const Elf64_Shdr* held = &sections_of(image)[section];
    const unsigned char *at = image + held->sh_offset, *end = at + held->sh_size;
    while (at < end) {
        unsigned char format = at[0], attribute = at[1];
        unsigned short size;
        unsigned values[3] = {0};
        memcpy(&size, at + 2, 2);
        at += 4;
        if (format != 4) continue;
        memcpy(values, at, size < sizeof values ? size : sizeof values);
        if (attribute == ATTRIBUTE_KERNEL_PARAMETER) read_parameter(kernel, at, 18);
        if (attribute == ATTRIBUTE_LARGE_PARAMETER) read_parameter(kernel, at, 0);
        if (attribute == ATTRIBUTE_MAX_THREADS) kernel->max_threads = values[0] * values[1] * values[2];
        if (attribute == ATTRIBUTE_CLUSTER) memcpy(kernel->cluster, values, sizeof kernel->cluster);
        if (attribute == ATTRIBUTE_REGISTERS && values[0] == symbol) kernel->registers = values[1];
        at += size;
    }
}

// Whether the cubin has a kernel of that name; what is said of it.
static int read_kernel(const unsigned char* image, const char* name, struct kernel* kernel) {
    int text = section_at(image, ".text.", name), own = section_at(image, ".nv.info.", name);
    int whole = section_at(image, "", ".nv.info"), shared = section_at(image, ".nv.shared.", name);
    const Elf64_Shdr* sections = sections_of(image);
    if (text < 0) return 0;
    memset(kernel, 0, sizeof *kernel);
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    kernel->max_threads = 1024;
    if (own >= 0) read_attributes(kernel, image, own, 0);
    if (whole >= 0) read_attributes(kernel, image, whole, sections[text].sh_info & 0xffffff);
    if (shared >= 0) {  // from 9.0 on, ptxas counts the driver's 1 KiB in
        int size = (int)sections[shared].sh_size, reserved = cubin_arch(image) >= 90 ? 1024 : 0;
        kernel->shared = size > reserved ? size - reserved : 0;
    }
    return 1;
}
