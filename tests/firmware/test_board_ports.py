"""STM32, Zephyr, ESP-IDF: port and example over a double of the SDK. Sessions, queues, time, causes of a reset."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from bare_host import Host
from bench import ALL, Bench, build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kizzasi_bridge.protocol import AckResult, Fault, MsgType, NodeState, ResetCause, State

DECLARATIONS = "void double_random(uint32_t number, uint32_t errors);"
MORE = {
    "stm32": """
        void double_timer_bits(int bits);
        void double_line_error(void);
        void double_home(int there);
        void double_transfer_error(void);
        void kizzasi_stm32_write(void *ctx, const uint8_t *frame, uint16_t n);""",
    "zephyr": """
        void double_watchdog_stages(int n);
        void double_cycles(uint32_t per_second);
        void kizzasi_zephyr_write(void *ctx, const uint8_t *frame, uint16_t n);""",
    "esp-idf": """
        void double_watchdog_stages(int n);
        void kizzasi_esp_write(void *ctx, const uint8_t *frame, uint16_t n);
        uint16_t kizzasi_esp_read(void *ctx, uint8_t *buf, uint16_t room);""",
}
BOOT_ID = 0xB007
Power = Callable[..., Bench]
"""``power(name, us=...)``: the board, with these members of bench_state set."""


@pytest.fixture(scope="module")
def power(tmp_path_factory: pytest.TempPathFactory) -> Power:
    libraries: dict[str, Path] = {}

    def make(name: str, **state: int) -> Bench:
        if name not in libraries:
            libraries[name] = build(name, tmp_path_factory.mktemp(name))
        bench = Bench(libraries[name], DECLARATIONS + MORE[name])
        bench.lib.double_random(BOOT_ID, 0)
        for member, value in state.items():
            setattr(bench.state, member, value)
        return bench

    return make


@pytest.fixture(params=ALL)
def bench(power: Power, request: pytest.FixtureRequest) -> Bench:
    return power(request.param)


def now(host: Host) -> State:
    assert host.now is not None
    return host.now


def in_state(host: Host, wanted: NodeState) -> None:
    host.until(lambda: host.now and host.now.state == wanted)


def armed(bench: Bench) -> Host:
    host = bench.host()
    host.upload()
    in_state(host, NodeState.READY)
    assert host.arm().result == AckResult.OK
    return host


def stream(host: Host, value: int, periods: int) -> None:
    for _ in range(periods):
        host.command((value,))
        host.live(2)


def clean(host: Host) -> bool:
    """No byte that came from the board was wrong."""
    d = host.decoder
    return d.bad_crc + d.bad_cobs + d.runt + d.too_long == 0


def test_a_life(bench: Bench) -> None:
    host, target = bench.host(), bench.board.target
    hello = host.introduce()
    assert (hello.boot_id, hello.state) == (BOOT_ID, NodeState.INIT)
    assert not bench.state.driven, "off until there are limits"
    host.upload()
    in_state(host, NodeState.READY)
    host.live(2)
    assert bench.state.driven
    assert host.arm().result == AckResult.OK
    stream(host, target, 250)
    told, measured = now(host).values
    assert target - 10 <= told <= target
    assert abs(measured - told) < 200, "the joint follows"
    assert abs(measured - bench.state.position) < 100, "and is measured where it is"
    in_state(host, NodeState.FAILSAFE)
    assert now(host).fault == Fault.TTL
    assert host.clear().result == AckResult.OK
    in_state(host, NodeState.READY)
    bench.state.stop = 1
    in_state(host, NodeState.ESTOP)
    host.until(lambda: not bench.state.driven)
    assert host.clear().result == AckResult.ESTOP_INPUT
    assert clean(host)
    assert now(host).rx_errors == 0


FIRST = {
    "stm32": ["off", "HAL_TIM_PWM_Start", "HAL_UART_Receive_DMA", "HAL_RNG_GenerateRandomNumber"],
    "zephyr": ["off", "wdt_install_timeout", "wdt_setup", "uart_irq_callback_user_data_set", "sys_csrand_get"],
    "esp-idf": ["off", "esp_task_wdt_init", "esp_task_wdt_add", "esp_random", "uart_driver_install"],
}


@pytest.mark.parametrize("name", ALL)
def test_torque_off_first_then_the_watchdog(power: Power, name: str) -> None:
    """On STM32 CubeMX's own code has started the watchdog by then."""
    bench = power(name)
    bench.run(5000)
    assert bench.calls[: len(FIRST[name])] == FIRST[name]
    assert "on" not in bench.calls


def test_one_kick_a_tick_and_none_from_a_hang(bench: Bench) -> None:
    armed(bench)
    before = bench.state.kicks
    bench.run(100_000)
    assert abs(bench.state.kicks - before - 100) <= 1
    bench.stick()
    stuck = bench.state.kicks
    bench.run(100_000)
    assert bench.state.kicks == stuck


@pytest.mark.parametrize(("name", "cut"), [("zephyr", True), ("esp-idf", True), ("stm32", False)])
def test_the_watchdog_cuts_the_outputs_where_it_interrupts(power: Power, name: str, cut: bool) -> None:
    """Where it only resets, the outputs fall off with the reset line, which no double shows."""
    bench = power(name)
    armed(bench)
    bench.stick()
    assert bench.state.driven
    bench.run(25_000)
    assert bench.state.driven == (not cut)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("name", ["zephyr", "esp-idf"])
def test_either_kind_of_watchdog_is_started(power: Power, name: str, stages: int) -> None:
    """Zephyr: one that cannot interrupt. ESP-IDF: one that the start-up code has set up already, or not."""
    bench = power(name)
    bench.lib.double_watchdog_stages(stages)
    armed(bench)
    assert bench.state.kicks > 10


def test_ticks_that_were_missed_are_skipped(bench: Bench) -> None:
    armed(bench)
    bench.stick()
    bench.run(8_000)
    before = bench.state.kicks
    bench.state.hang = 0
    bench.run(20_000)
    assert 18 <= bench.state.kicks - before <= 21


@pytest.mark.parametrize("name", ALL)
def test_a_broken_random_number_generator_is_the_watchdogs(power: Power, name: str) -> None:
    bench = power(name)
    bench.lib.double_random(7, 20)
    assert bench.host().introduce().boot_id == 7
    bench = power(name)
    bench.lib.double_random(0, 0)
    bench.run(100_000)
    assert bench.state.kicks == 0
    assert not bench.state.returned


def test_a_host_that_does_not_listen_loses_whole_frames_only(bench: Bench) -> None:
    host = armed(bench)
    bench.state.deaf = 1
    bench.run(600_000)
    bench.state.deaf = 0
    got = host.live(40)
    gaps = [(b.seq - a.seq) & 0xFFFF for a, b in pairwise(got)]
    assert max(gaps) > 20, "frames were lost"
    assert clean(host)
    assert (now(host).state, now(host).fault) == (NodeState.FAILSAFE, Fault.ARM_TTL)


def test_more_bytes_than_the_queue_holds_are_lost_and_told(bench: Bench) -> None:
    host = armed(bench)
    bench.stick()  # nobody reads
    for _ in range(60):
        host.put(MsgType.HELLO_REQ, bytes(2))  # 17 bytes each: 1020 at once, into a queue of 512
    bench.give(host.out())
    bench.run(12_000)
    bench.state.hang = 0
    host.live(20)
    stream(host, bench.board.start, 2)
    assert 1 <= now(host).rx_errors <= 3
    assert now(host).state == NodeState.ARMED


@pytest.mark.parametrize("name", ALL)
def test_the_clock_wraps(power: Power, name: str) -> None:
    bench = power(name, us=2**32 - 200_000)
    if name == "stm32":
        bench.lib.double_timer_bits(32)
    host = armed(bench)
    first, times = now(host).sample_t_us, []
    for _ in range(200):
        stream(host, bench.board.target, 1)
        times.append(now(host).sample_t_us)
    assert (times[-1] - first) % 2**32 == pytest.approx(400_000, abs=5000)
    assert {(b - a) % 2**32 // 1000 for a, b in pairwise(times)} <= {1, 2, 3}
    assert now(host).state == NodeState.ARMED
    assert now(host).misses <= 2


CAUSES = {
    "stm32": {  # flags of the RCC, by their place
        0b0000_0110: ResetCause.POWER_ON,  # BOR PIN
        0b0000_0100: ResetCause.SOFTWARE,  # PIN
        0b0001_0100: ResetCause.SOFTWARE,  # SFT PIN
        0b0010_0100: ResetCause.WATCHDOG,  # IWDG PIN
        0b0100_0100: ResetCause.WATCHDOG,  # WWDG PIN
        0b0010_0110: ResetCause.WATCHDOG,  # BOR IWDG PIN
    },
    "zephyr": {
        0b1001: ResetCause.POWER_ON,
        0b0001: ResetCause.SOFTWARE,
        0b0010: ResetCause.SOFTWARE,
        0b0101: ResetCause.BROWN_OUT,
        0b1_0001: ResetCause.WATCHDOG,
        0b1_0000_0000: ResetCause.WATCHDOG,
        0xFFFFFFFF: ResetCause.POWER_ON,  # the chip does not tell
    },
    "esp-idf": {
        0: ResetCause.POWER_ON,
        1: ResetCause.POWER_ON,
        2: ResetCause.SOFTWARE,
        3: ResetCause.SOFTWARE,
        4: ResetCause.WATCHDOG,
        5: ResetCause.WATCHDOG,
        6: ResetCause.WATCHDOG,
        7: ResetCause.WATCHDOG,
        9: ResetCause.BROWN_OUT,
    },
}


@pytest.mark.parametrize(("name", "flags"), [(name, flags) for name in CAUSES for flags in CAUSES[name]])
def test_the_cause_of_a_reset(power: Power, name: str, flags: int) -> None:
    bench = power(name, reset_flags=flags << 24 if name == "stm32" else flags)
    assert bench.host().introduce().reset_cause == CAUSES[name][flags]
    if name == "stm32" or (name == "zephyr" and flags < 2**31):
        assert bench.state.reset_flags == 0, "the next reset is not blamed on this one"


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(3, 300), st.integers(0, 4000)), min_size=1, max_size=40))
def test_the_queue_sends_whole_frames_in_order(power: Power, name: str, script: list[tuple[int, int]]) -> None:
    """Whatever their lengths and the time between them; and none is dropped that there was room for."""
    bench = power(name)
    armed(bench)
    bench.stick()  # from here on only the test writes
    bench.run(50_000)
    write = getattr(bench.lib, f"kizzasi_{name.split('-')[0]}_write")
    frames, out = [], b""
    for i, (length, pause) in enumerate(script):
        frame = bytes([i]) * length
        sure = sum(len(f) for f, _ in frames) - len(out) + length <= bench.board.room
        write(bench.null, frame, length)
        frames.append((frame, sure))
        out += bench.run(pause) if pause else b""
    for _ in range(100):
        if name == "esp-idf":  # a task that lives reads in every tick
            bench.lib.kizzasi_esp_read(bench.null, bench.state.rx, 0)
        out += bench.run(1000)
    for frame, sure in frames:
        if out.startswith(frame):
            out = out[len(frame) :]
        else:
            assert not sure
    assert out == b""


def test_stm32_reception_goes_on_after_an_error_on_the_line(power: Power) -> None:
    bench = power("stm32")
    host = armed(bench)
    for _ in range(5):
        bench.lib.double_line_error()
        bench.give(b"\x55" * 7)
        host.live()
        stream(host, 300, 4)
    assert now(host).state == NodeState.ARMED
    assert bench.calls.count("HAL_UART_Receive_DMA") == 6


def test_stm32_sending_goes_on_after_an_error_of_the_dma(power: Power) -> None:
    bench = power("stm32")
    host = armed(bench)
    for _ in range(5):
        bench.run(200)  # into a transfer
        bench.lib.double_transfer_error()
        stream(host, 300, 6)
    assert now(host).state == NodeState.ARMED
    assert now(host).applied_seq == host.seq


def test_stm32_example_waits_until_it_is_homed(power: Power) -> None:
    bench = power("stm32")
    host = bench.host()
    bench.run(10)  # it has not yet read the switch
    bench.lib.double_home(0)
    bench.state.position = -777
    host.upload()
    host.live(50)
    assert now(host).state == NodeState.INIT
    assert not bench.state.driven
    assert host.arm().result == AckResult.NO_MEASUREMENT
    bench.lib.double_home(1)
    in_state(host, NodeState.READY)
    assert now(host).values == (0, 0)


def test_zephyr_a_clock_that_is_slower_than_a_microsecond(power: Power) -> None:
    """nRF: 32 768 Hz. What is less than a microsecond is carried on."""
    bench = power("zephyr")
    bench.lib.double_cycles(32_768)
    host = armed(bench)
    first = now(host).sample_t_us
    stream(host, bench.board.target, 200)
    passed = now(host).sample_t_us - first
    assert passed == pytest.approx(400_000, abs=2500)
    assert abs((passed + 1000) % 2000 - 1000) < 80, "whole periods, but for the clock's grain of 31"


def test_stm32_a_clock_of_16_bits(power: Power) -> None:
    bench = power("stm32", us=65_000)
    bench.lib.double_timer_bits(16)
    host = armed(bench)
    first = now(host).sample_t_us
    stream(host, 1000, 200)
    assert now(host).sample_t_us - first == pytest.approx(400_000, abs=5000)
