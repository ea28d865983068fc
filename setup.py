"""conf/ stays at the top of the repository and travels in the wheel as uar/conf; all else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["uar", "uar.*"]), "uar.conf"], package_dir={"uar.conf": "conf"})
