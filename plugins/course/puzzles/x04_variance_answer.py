"""The variance of each row of x, an array of f32: the mean of the squared distances from the row's mean. The numbers of
a row may be near 1,000 and differ by 1; stay in f32."""


def variance(x):
    #[ (rows, C) in, (rows,) out
    centred = x - x.mean(-1, keepdims=True)
    return (centred * centred).mean(-1)
    #]
