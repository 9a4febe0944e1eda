"""The options with which programs are compiled."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from research import compiling


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Options that are read anew, with no flags of XLA."""
    monkeypatch.setattr(compiling, "options", compiling.options.__wrapped__)
    monkeypatch.setenv("XLA_FLAGS", "")
    return monkeypatch


def test_options_are_those_of_a_cpu_unless_the_user_sets_one(fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert compiling.options() == {compiling.LEVEL: 1, compiling.WIDTH: 512}
    for flag in (compiling.LEVEL, compiling.WIDTH):
        fresh.setenv("XLA_FLAGS", f"--{flag}=2")
        assert compiling.options() == {}
    (tmp_path / "flags").write_text(f"--{compiling.LEVEL}=2\n")  # XLA reads such a file
    fresh.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    assert compiling.options() == {}
    fresh.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    assert compiling.options() == {compiling.LEVEL: 1, compiling.WIDTH: 512}
    fresh.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.options() == {}


def test_a_program_is_compiled_with_them_once(fresh: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    fresh.setattr(compiling, "options", lambda: asked.append("options") or {compiling.LEVEL: 0})
    double = compiling.compiled(static_argnames="times")(lambda x, times: x * times)
    assert not asked  # the device may be chosen later
    assert [float(double(jnp.float32(3), times=times)) for times in (2, 4)] == [6, 12]
    assert asked == ["options"]
    assert double.jitted._cache_size() == 2
    assert "f32[]" in double.jitted.lower(jnp.float32(1), times=2).compile().as_text()


def test_a_wrong_option_is_an_error_of_the_compiler(fresh: pytest.MonkeyPatch) -> None:
    """Or the options would not reach it."""
    fresh.setattr(compiling, "options", lambda: {"xla_no_such_option": 1})
    with pytest.raises(Exception, match="xla_no_such_option"):
        compiling.compiled()(lambda x: x + 1)(jnp.float32(1))


def test_a_program_inside_another_one_is_a_part_of_it(fresh: pytest.MonkeyPatch) -> None:
    """JAX takes options for the outer program only."""
    double = compiling.compiled()(lambda x: 2 * x)
    outer = compiling.compiled()(lambda x: double(x) + 1)
    assert float(outer(jnp.float32(3))) == 7
    assert jax.eval_shape(outer, jax.ShapeDtypeStruct((), jnp.float32)).shape == ()
