"""What of the STM32, Zephyr and ESP-IDF boards can be checked without their SDKs.

Their C goes through the real target's compiler, against declarations of the SDK that we wrote after its documentation:
wrong names, types and arities show, a wrong idea of what a function does would not. Kconfig and devicetree go through
the parsers that Zephyr itself uses.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bench import ALL, BOARDS, flags, make_schema

from kizzasi_bridge.board_file import load_board

ARM, RISCV = "arm-none-eabi-gcc", "riscv64-unknown-elf-gcc"
PICOLIBC = "--specs=picolibc.specs"
# A family of each kind of reset flags: F1, F4, G0; the declarations' own is G4.
TARGETS = {
    "stm32 Cortex-M4F": ("stm32", [ARM, "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]),
    "stm32 Cortex-M3": ("stm32", [ARM, "-mcpu=cortex-m3", "-mthumb", "-DLIKE_F1"]),
    "stm32 Cortex-M7": ("stm32", [ARM, "-mcpu=cortex-m7", "-mthumb", "-DLIKE_F4"]),
    "stm32 Cortex-M0+": ("stm32", [ARM, "-mcpu=cortex-m0plus", "-mthumb", "-DLIKE_G0"]),
    "zephyr Cortex-M4F": ("zephyr", [ARM, "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]),
    "zephyr RV32": ("zephyr", [RISCV, "-march=rv32imc", "-mabi=ilp32", PICOLIBC]),
    "esp-idf RV32": ("esp-idf", [RISCV, "-march=rv32imc", "-mabi=ilp32", PICOLIBC]),
}
DEVICETREE = """
/dts-v1/;
/ {
  #address-cells = <1>;
  #size-cells = <1>;
  chosen { };
  aliases { watchdog0 = &iwdg; };
  iwdg: watchdog@1 { compatible = "bare"; reg = <1 1>; };
  lpuart1: serial@2 { compatible = "bare"; reg = <2 1>; };
  gpiob: gpio@3 { compatible = "gpio"; reg = <3 1>; gpio-controller; #gpio-cells = <2>; };
  gpioc: gpio@4 { compatible = "gpio"; reg = <4 1>; gpio-controller; #gpio-cells = <2>; };
  adc1: adc@5 { compatible = "adc"; reg = <5 1>; #io-channel-cells = <1>; };
  timers3: timers@6 { compatible = "bare"; reg = <6 1>; pwm3: pwm { compatible = "pwm"; #pwm-cells = <3>; }; };
};
"""
MACROS = ["PWM_MSEC(x)=((x)*1000000)", "PWM_POLARITY_NORMAL=0", "GPIO_ACTIVE_HIGH=0", "GPIO_PULL_UP=16"]
MACROS += ["ADC_ACQ_TIME_DEFAULT=0"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_ports_compile_for_their_cores(target: str, tmp_path: Path) -> None:
    name, compiler = TARGETS[target]
    if not shutil.which(compiler[0]):
        pytest.skip(f"{compiler[0]} is not installed")
    for source in ALL[name].sources:
        words = [*compiler, *flags(name, make_schema(name, tmp_path)), "-Os", "-Wconversion", "-c", str(source)]
        done = subprocess.run([*words, "-o", str(tmp_path / "object.o")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("stm32", ("HAL_UART_Receive_DMA(port->uart,", "HAL_UART_Receive_DMA(")),
        ("zephyr", ("k_timer_status_sync(&kizzasi_tick)", "k_timer_status_sync(kizzasi_tick)")),
        ("esp-idf", ("uart_driver_install(PORT, CONFIG_KIZZASI_RX_ROOM, 0, 0,", "uart_driver_install(PORT, 0, 0,")),
    ],
)
def test_a_wrong_call_does_not_compile(call: str, wrong: tuple[str, str], tmp_path: Path) -> None:
    port = ALL[call].sources[0]
    text = port.read_text()
    assert wrong[0] in text
    copy = tmp_path / port.name
    copy.write_text(text.replace(*wrong))
    words = ["cc", *flags(call, make_schema(call, tmp_path)), f"-I{port.parent}", "-fsyntax-only", str(copy)]
    assert subprocess.run(words, capture_output=True).returncode != 0


@pytest.mark.parametrize("name", ALL)
def test_all_files_that_cmake_names_exist(name: str) -> None:
    lists = list((BOARDS / name).rglob("CMakeLists.txt"))
    assert lists
    for cmake in lists:
        text = re.sub(r"^\s*#.*$", "", cmake.read_text(), flags=re.M)
        core = re.search(r"set\(core \$\{CMAKE_CURRENT_LIST_DIR\}/(\S+)\)", text)
        found = re.findall(r"(\S+\.c)\b", text)
        for path in found:
            if core:
                path = path.replace("${core}", core[1])
            path = path.replace("${CMAKE_CURRENT_LIST_DIR}/", "")
            assert (cmake.parent / path).is_file(), f"{cmake}: {path}"
        if core:
            listed = {Path(path).name for path in found if "core" in path}
            assert listed == {"kz_wire.c", "kz_guard.c", "kz_channel.c", "kz_node.c"}


@pytest.mark.parametrize(
    ("kconfig", "settings"),
    [
        ("zephyr/Kconfig", "zephyr/samples/servo/prj.conf"),
        ("esp-idf/kizzasi/Kconfig", "esp-idf/examples/servo/sdkconfig.defaults"),
    ],
)
def test_kconfig(kconfig: str, settings: str, tmp_path: Path) -> None:
    """It parses without a warning, the example sets only what there is, and the tests assume what it says."""
    kconfiglib = pytest.importorskip("kconfiglib", reason="pip install kconfiglib")
    around = tmp_path / "Kconfig"  # what the SDK would define
    around.write_text(
        "\n".join(f"config {s}\n\tbool\n" for s in ("UART_INTERRUPT_DRIVEN", "RING_BUFFER", "WATCHDOG", "HWINFO"))
        + f'\nconfig SERIAL\n\tdef_bool y\n\nsource "{BOARDS / kconfig}"\n'
    )
    tree = kconfiglib.Kconfig(str(around), warn_to_stderr=False)
    example = re.findall(r"^CONFIG_(KIZZASI\w*)=(.*)$", (BOARDS / settings).read_text(), re.M)
    assert len(example) >= 3
    for symbol, value in example:
        assert symbol in tree.syms, symbol
        assert tree.syms[symbol].set_value(value)
    assert not tree.warnings
    used = {
        symbol
        for source in (BOARDS / kconfig).parent.rglob("*.[ch]")
        for symbol in re.findall(r"\bCONFIG_(KIZZASI\w+)", source.read_text())
    }
    assert used
    assert used <= set(tree.syms)
    assert tree.syms["KIZZASI_WATCHDOG_MS"].str_value == "20"
    assert tree.syms["KIZZASI_TX_ROOM"].str_value == str(ALL[kconfig.split("/")[0]].room)


def test_the_devicetree_overlay(tmp_path: Path) -> None:
    """Zephyr's own parser takes it and finds the devices that the sample asks for."""
    edtlib = pytest.importorskip("devicetree.edtlib", reason="pip install devicetree")
    overlay = BOARDS / "zephyr" / "samples" / "servo" / "boards" / "nucleo_g474re.overlay"
    whole, cells = tmp_path / "whole.dts", tmp_path / "bindings"
    cells.mkdir()
    for kind, names in {"bare": None, "gpio": "pin, flags", "adc": "input", "pwm": "channel, period, flags"}.items():
        space = "io-channel" if kind == "adc" else kind
        more = f"{space}-cells: [{names}]\n" if names else ""
        (cells / f"{kind}.yaml").write_text(f'description: a double\ncompatible: "{kind}"\n{more}')
    words = ["cc", "-E", "-P", "-undef", "-x", "assembler-with-cpp", *(f"-D{macro}" for macro in MACROS), str(overlay)]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    whole.write_text(DEVICETREE + text)
    tree = edtlib.EDT(str(whole), [str(cells)], infer_binding_for_paths=["/zephyr,user"])
    user = tree.get_node("/zephyr,user").props
    found = {name: [entry.controller.labels[0] for entry in prop.val] for name, prop in user.items()}
    assert found == {"pwms": ["pwm3"], "io-channels": ["adc1"], "power-gpios": ["gpiob"], "stop-gpios": ["gpioc"]}
    assert user["pwms"].val[0].data == {"channel": 1, "period": 20_000_000, "flags": 0}
    assert user["io-channels"].val[0].data == {"input": 1}
    assert tree.label2node["lpuart1"].aliases == ["kizzasi-uart"]
    assert tree.label2node["iwdg"].aliases == ["watchdog0"]


@pytest.mark.parametrize("name", ALL)
def test_the_example_says_what_it_drives(name: str) -> None:
    schema = load_board(ALL[name].example / "board.toml").schema
    assert len(schema.channels) == len(schema.sensors) == 1
    assert f"-DKZ_NODE_CH={len(schema.channels)}" in ALL[name].settings


def test_the_manifests() -> None:
    yaml = pytest.importorskip("yaml")
    module = yaml.safe_load((BOARDS / "zephyr" / "zephyr" / "module.yml").read_text())
    assert (BOARDS / "zephyr" / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (BOARDS / "zephyr" / module["build"]["kconfig"]).is_file()
    (samples,) = module["samples"]
    sample = yaml.safe_load((BOARDS / "zephyr" / samples / "servo" / "sample.yaml").read_text())
    (test,) = sample["tests"].values()
    assert (BOARDS / "zephyr" / samples / "servo" / "boards" / f"{test['platform_allow']}.overlay").is_file()
    component = yaml.safe_load((BOARDS / "esp-idf" / "kizzasi" / "idf_component.yml").read_text())
    assert set(component) == {"version", "description", "license", "dependencies"}


def test_what_is_uncompiled_is_said_to_be() -> None:
    """README and docs list every board, and claim no more than is true."""
    folders = {path.name for path in BOARDS.iterdir() if path.is_dir()}
    pages = [BOARDS / "README.md", BOARDS.parents[1] / "docs" / "porting.md"]
    for page in pages:
        rows = re.findall(r"^\| `(?:boards/)?(\w[\w-]*)` \|[^|]*\| (\**)(runs|never compiled)", page.read_text(), re.M)
        said = {name: claim for name, _, claim in rows}
        claims = {name: said[name] for name in folders}
        assert claims == {name: "never compiled" if name in ALL else "runs" for name in folders}, page
    for name in ALL:
        assert "never been compiled against the real" in (BOARDS / name / "README.md").read_text()
