"""Run random programs of the public functions, to see that each of them ends.

    python tests/random_programs.py --programs 2000 --devices 4

Every program computes a few functions of many cells, some with their gradients, several times. A
program that runs into the time limit is named, and the process ends with the stack of every thread.
"""

import argparse
import faulthandler
import os
import random
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--programs", type=int, default=50)
parser.add_argument("--first", type=int, default=0, help="the number of the first program")
parser.add_argument("--devices", type=int, default=1, help="virtual devices of the CPU")
parser.add_argument("--limit", type=float, default=600, help="seconds that a program may take")
CALLS = 5  # of each program
ENTRIES = 2**14  # of all matrices of an argument
SIZES = (4, 16, 48)


def program_of(number):
    """Return (what it is, the program, its arguments, their mesh); every number has its own."""
    import jax
    import numpy as np

    from programs import with_gradient
    from public_functions import CALLED, logits, matrix

    choice, rng = random.Random(number), np.random.default_rng(number)
    names = choice.sample(sorted(CALLED), choice.randint(2, 4))
    n, sloped = choice.choice(SIZES), choice.random() < 0.3
    cells = min(256, ENTRIES // n**2 // 4 * 4)

    def made(maker):
        given = (rng, n) if maker in (logits, matrix) else (rng,)
        return np.stack([np.asarray(maker(*given)) for _ in range(cells)])

    arguments = {name: [made(maker) for maker in CALLED[name][1:]] for name in names}

    def program(arguments):
        return [CALLED[name][0](*arguments[name]) for name in names]

    about = f"{cells} cells, n = {n}, {'values and gradients' if sloped else 'values'}"
    way = choice.choice(["Auto", "Explicit", "shard_map"])
    axis = jax.sharding.AxisType["Explicit" if way == "Explicit" else "Auto"]
    mesh = jax.make_mesh((jax.device_count(),), ("cells",), axis_types=(axis,))
    arguments = jax.device_put(arguments, jax.NamedSharding(mesh, jax.P("cells")))
    many = jax.vmap(with_gradient(program) if sloped else program)
    if way == "shard_map":
        many = jax.shard_map(many, mesh=mesh, in_specs=jax.P("cells"), out_specs=jax.P("cells"))
    return f"{way}, {about} of {', '.join(names)}", jax.jit(many), arguments, mesh


def main(programs, first, devices, limit):
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax

    jax.config.update("jax_enable_x64", True)
    begin, work = time.perf_counter(), time.process_time()
    for number in range(first, first + programs):
        faulthandler.dump_traceback_later(limit, exit=True)
        about, program, arguments, mesh = program_of(number)
        print(f"{number}: {about}", flush=True)
        with jax.set_mesh(mesh):
            for _ in range(CALLS):
                jax.block_until_ready(program(arguments))
        faulthandler.cancel_dump_traceback_later()
        jax.clear_caches()
    took, work = time.perf_counter() - begin, time.process_time() - work
    print(f"{programs} programs ended, in {took:.0f} s ({work:.0f} s of CPU)")


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
