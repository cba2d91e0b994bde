"""EMA: an exponential moving average of the weights, beside those that train. [plugins.ema] decay = 0.999.

Each checkpoint keeps it: RUN/ema is the model with the averaged weights, for core.load, core sample, core eval, core
export and `weights`. A resumed run continues it bit for bit.
"""

OPTIONS = {"decay": 0.0, "every": 1, "validate": False}


def core_train_start(training):
    options = training.options("ema", OPTIONS)
    if options["decay"]:
        from .average import begin  # of runs that have one

        begin(training, options)


def core_train_end(run, training):
    state = training.state.get("ema")
    if state and training.saved:
        training.say(f"ema: {state['updates']:,} updates with decay {state['decay']:g}; {run.path}/ema has the average")
