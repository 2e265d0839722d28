//! Each seed in a process of its own, so that nothing of another run is in it.

use std::{
    env,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{check::Violation, plant::Plant, run, run::Outcome};

/// What the child runs: a seed, and maybe the name of a plant.
const ORDER: &str = "SIM_CHILD";
/// How long a run may use a processor, in seconds: one takes less than two, so this one is caught in a loop.
const LIMIT_S: u32 = 60;
/// How long it may take, also on a machine that has much else to do: this one waits for itself.
const PATIENCE_S: u32 = 600;
/// What its line with the outcome begins with.
const OUTCOME: &str = "outcome of the simulation: ";

/// Runs `seed`, with what is planted.
pub(crate) fn run(seed: u64, plant: Option<Plant>) -> Outcome {
    let plant = plant.map_or_else(String::new, |plant| format!("{plant:?}"));
    let child = Command::new("sh")
        .args(["-c", &format!("ulimit -t {LIMIT_S}; exec timeout {PATIENCE_S} \"$@\""), "sh"])
        .arg(env::current_exe().expect("this test"))
        .args(["--exact", "child::one_seed", "--nocapture"])
        .env(ORDER, format!("{seed} {plant}"))
        .env_remove("RUST_BACKTRACE")
        .stderr(Stdio::piped())
        .output()
        .expect("a process");
    let [text, stderr] = [&child.stdout, &child.stderr].map(|out| String::from_utf8_lossy(out));
    let outcome = text.lines().find_map(|line| line.split_once(OUTCOME));
    let outcome = outcome.and_then(|(_, outcome)| read(seed, outcome));
    outcome.unwrap_or_else(|| Outcome {
        seed,
        violations: vec![Violation::new(
            "no-panic",
            format!("the run ended early, {}: {}", child.status, stderr),
        )],
        calls: 0,
        log: Vec::new(),
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "the answer to the process that started this one")]
fn one_seed() {
    // Only a child has something to do here.
    let Ok(order) = env::var(ORDER) else { return };
    let (seed, plant) = order.split_once(' ').expect("two words");
    let outcome = run::run(seed.parse().expect("a number"), Plant::named(plant));
    let violations = outcome.violations.iter().map(|found| json!([found.invariant, found.text]));
    let violations: Vec<Value> = violations.collect();
    let answer = json!({ "violations": violations, "calls": outcome.calls, "log": outcome.log });
    println!("\n{OUTCOME}{answer}");
}

fn read(seed: u64, text: &str) -> Option<Outcome> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let violation = |found: &Value| Some(Violation::new(found[0].as_str()?, found[1].as_str()?));
    let violations = answer["violations"].as_array()?.iter().map(violation);
    let log = answer["log"].as_array()?.iter().map(|line| Some(line.as_str()?.to_owned()));
    Some(Outcome {
        seed,
        violations: violations.collect::<Option<_>>()?,
        calls: usize::try_from(answer["calls"].as_u64()?).ok()?,
        log: log.collect::<Option<_>>()?,
    })
}
