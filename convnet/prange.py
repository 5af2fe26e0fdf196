"""prange: the loop of a kernel that the threads share.

    def twice(x, y):
        n = x.size
        for i in prange(n):
            y[i] = 2 * x[i]

Whoever calls a kernel comes to prange first. There all threads of Numba's pool call the kernel
again, with the same arguments, and each finds its share of 0..n - 1 at the same place; the caller
finds nothing left to do. So every thread computes what stands before the loop, and what stands
after it: a kernel has one prange, writes nothing before it and ends with it.

Numba has a prange too, with `parallel=True`. It makes a function of the loop and two around that,
for reductions, fusions and arrays in general, and compiles the loop in each: three times as long.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.callconv import RETCODE_NONE, RETCODE_OK
from numba.extending import lower_builtin, type_callable

I8P, I32, I64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
TASK = ir.FunctionType(ir.VoidType(), [I8P.as_pointer(), I64.as_pointer(), I64.as_pointer(), I8P])
LAUNCH = ir.FunctionType(ir.VoidType(), [I8P] * 5 + [I64, I64, I32])
# What a task calls a kernel with: where the kernel puts what it returns, which None is, and behind
# it, as that is all that a caller can pass unseen, which share of how many it has to do.
SLOT = ir.LiteralStructType([I8P, I64, I64])
# More bits than an index has. LLVM sees that none is negative, for which Numba's code tests each: a
# loop that has to test is not vectorised.
INDEX = I64(2**48 - 1)


def prange(n: int) -> range:
    """In compiled code the share of this thread."""
    return range(n)


@type_callable(prange)
def _type(context):
    return lambda n: types.range_state64_type if isinstance(n, types.Integer) else None


@lower_builtin(prange, types.Integer)
def _lower(context, builder, signature, arguments):
    """The share of the thread that comes here, or, for the caller, the work of all threads."""
    kernel, (number,) = builder.function, arguments
    n = context.cast(builder, number, signature.args[0], types.intp)
    n = builder.select(builder.icmp_signed("<", n, I64(0)), I64(0), n)
    if f"{kernel.name}.running" in builder.module.globals:
        raise TypeError(f"{kernel.name}: a kernel has one prange")
    for argument in kernel.args[2:]:
        if isinstance(argument.type, ir.PointerType):  # no array overlaps another that is written
            argument.add_attribute("noalias")
    running = cgutils.add_global_variable(builder.module, I32, f"{kernel.name}.running")
    running.initializer, running.linkage = I32(0), "internal"
    share = cgutils.create_struct_proxy(types.range_state64_type)(context, builder)
    share.start, share.stop, share.step = I64(0), I64(0), I64(1)
    with builder.if_else(cgutils.is_not_null(builder, builder.load(running))) as (task, caller):
        with task:
            slot = builder.bitcast(kernel.args[0], SLOT.as_pointer())
            part, parts = (builder.load(cgutils.gep_inbounds(builder, slot, 0, i)) for i in (1, 2))
            after = builder.add(part, I64(1))
            start, stop = (builder.udiv(builder.mul(n, p), parts) for p in (part, after))
            share.start = builder.and_(start, INDEX)
            share.stop = builder.add(share.start, builder.and_(builder.sub(stop, start), INDEX))
        with caller:
            _all(context, builder, kernel, running)
    return share._getvalue()


def _all(context, builder, kernel, running) -> None:
    """Let each thread call the kernel."""
    module, given = builder.module, kernel.args[2:]
    threads = cgutils.get_or_insert_function(module, ir.FunctionType(I32, []), "get_num_threads")
    launch = cgutils.get_or_insert_function(module, LAUNCH, "numba_parallel_for")
    count = builder.call(threads, [])
    parts = builder.zext(count, I64)
    values = [I32(0), parts, *given]  # whether a task has failed, and what all tasks read
    frame = cgutils.alloca_once(builder, ir.LiteralStructType([v.type for v in values]))
    for i, value in enumerate(values):
        builder.store(value, cgutils.gep_inbounds(builder, frame, 0, i))
    # As for a ufunc over an array of bytes from address 1: the address tells a task its number.
    first = cgutils.alloca_once_value(builder, builder.inttoptr(I64(1), I8P))
    shape, stride = (cgutils.alloca_once_value(builder, v) for v in (parts, I64(1)))
    passed = [_task(module, kernel, frame.type), first, shape, stride, frame]
    passed = [builder.bitcast(p, I8P) for p in passed]
    builder.store(I32(1), running)
    builder.call(launch, [*passed, I64(0), I64(1), count])
    builder.store(I32(0), running)
    failed = builder.load(cgutils.gep_inbounds(builder, frame, 0, 0))
    with builder.if_then(cgutils.is_not_null(builder, failed), likely=False):
        context.call_conv.return_user_exc(builder, MemoryError, (f"in kernel {kernel.name}",))


def _task(module, kernel, frame_type):
    """The function that a thread calls: it does some shares of the kernel."""
    task = ir.Function(module, TASK, f"{kernel.name}.task")
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    first, count, _, frame = task.args
    frame = builder.bitcast(frame, frame_type)
    failed, parts, *given = (
        cgutils.gep_inbounds(builder, frame, 0, i) for i in range(len(frame_type.pointee.elements))
    )
    parts, given = builder.load(parts), [builder.load(place) for place in given]
    part = builder.sub(builder.ptrtoint(builder.load(first), I64), I64(1))
    slot = cgutils.alloca_once(builder, SLOT)
    error = cgutils.alloca_once(builder, kernel.args[1].type.pointee)
    with cgutils.for_range(builder, builder.load(count)) as loop:
        for i, value in enumerate((I8P(None), builder.add(part, loop.index), parts)):
            builder.store(value, cgutils.gep_inbounds(builder, slot, 0, i))
        returned = builder.bitcast(slot, kernel.args[0].type)
        status = builder.call(kernel, [returned, error, *given])
        fine = (builder.icmp_signed("==", status, code) for code in (RETCODE_OK, RETCODE_NONE))
        with builder.if_then(builder.not_(builder.or_(*fine)), likely=False):
            builder.store(I32(1), failed)
    builder.ret_void()
    return task
