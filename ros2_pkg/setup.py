"""How colcon installs kizzasi_ros; name, version and licence are package.xml's."""

import xml.etree.ElementTree as ET
from pathlib import Path

from setuptools import setup

package = ET.parse("package.xml").getroot()
maintainer = package.find("maintainer")
name = package.findtext("name")
share = Path("share") / name


def files(folder):
    """(where, what) to install of a folder and those in it; what tools leave behind is none of it."""
    kept = sorted(path for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(str(share / path.parent), [str(path)]) for path in kept]


setup(
    name=name,
    version=package.findtext("version"),
    description=package.findtext("description"),
    license=package.findtext("license"),
    maintainer=maintainer.text,
    maintainer_email=maintainer.get("email"),
    packages=[name],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (str(share), ["package.xml"]),
        *files("launch"),
        *files("config"),
    ],
    install_requires=["setuptools", "kizzasi-edge[ros2]"],
    zip_safe=True,
    entry_points={"console_scripts": [f"policy_node = {name}.policy_node:main"]},
)
