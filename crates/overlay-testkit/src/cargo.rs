//! Cargo, started by what cargo has started: tests that build programs, and chores.

use std::{env, process::Command};

/// What begins the names of variables that cargo describes to a program the package that it is of.
const DESCRIBED: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Has `command` know nothing of the package that this process is of. Build scripts of dependencies watch these
/// variables (ring's does): handed on, they would have half the tree built again at each change of caller.
pub fn forget_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if DESCRIBED.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_knows_the_rest_of_the_environment_only() {
        let mut command = Command::new("env");
        forget_package(&mut command);
        let output = command.output().unwrap();
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(names.lines().any(|line| line.starts_with("PATH=")), "{names}");
        let described = |line: &str| DESCRIBED.iter().any(|prefix| line.starts_with(prefix));
        assert!(env::vars().any(|(name, _)| described(&name)), "cargo describes this test");
        assert!(!names.lines().any(described), "{names}");
    }
}
