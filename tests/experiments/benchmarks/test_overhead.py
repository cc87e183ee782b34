"""Tests the count of operations of a compiled program."""

from experiments.benchmarks import overhead


def test_operations_leave_bookkeeping_out():
    class Program:
        def as_text(self):
            return (
                "HloModule m\n\n%f (p: f32[]) -> f32[] {\n  %p = f32[] parameter(0)\n  ROOT %a = f32[] add(%p, %p)\n}\n"
                "\nENTRY %main (x: f32[2,2]) -> (f32[2,2]) {\n  %x = f32[2,2]{1,0} parameter(0)\n"
                "  %fusion = f32[2,2]{1,0} fusion(%x), kind=kLoop, calls=%f\n"
                "  %dot.1 = f32[2,2]{1,0} dot(%x, %fusion), lhs_contracting_dims={1}\n"
                "  ROOT %tuple = (f32[2,2]{1,0}) tuple(%dot.1)\n}\n"
            )

    assert overhead.num_operations(Program()) == 2
