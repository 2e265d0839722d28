//! Tasks that come, go and change, in every order: who gets connections, and which names there are.

use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
};

use anyhow::{Result, bail, ensure};
use overlay_testkit::until::until;
use rstest::rstest;

use crate::{
    load,
    plane::Plane::{self, Kernel, User},
    setup::{Cluster, Container, Lab, PATIENCE},
    web::{PORT, Task, vip},
};

/// Where a task can be in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Attach,
    Ready,
    Drain,
    Detach,
}

use Step::{Attach, Detach, Drain, Ready};

/// All that can happen to the second task, in each state of the first one, and the other way round.
const STEPS: [(usize, Step); 20] = [
    (0, Attach),
    (1, Attach),
    (1, Ready),
    (1, Drain),
    (1, Ready),
    (1, Detach),
    (0, Ready),
    (1, Attach),
    (1, Drain),
    (1, Ready),
    (0, Drain),
    (1, Detach),
    (1, Attach),
    (1, Ready),
    (0, Detach),
    (0, Attach),
    (0, Drain),
    (1, Drain),
    (0, Detach),
    (1, Detach),
];

/// Who shall get connections.
struct Model {
    tasks: [Option<Task>; 2],
    ready: BTreeSet<String>,
}

impl Model {
    fn step(&mut self, lab: &Lab, number: usize, step: Step) -> Result<()> {
        let name = format!("task{number}");
        let task = &mut self.tasks[number];
        match (step, &task) {
            (Attach, None) => *task = Some(Task::starting(lab, 1 + number as u8, "net", name)?),
            (Ready, Some(there)) => {
                there.be(lab, "ready")?;
                self.ready.insert(name);
            }
            (Drain, Some(there)) => {
                there.be(lab, "drain")?;
                self.ready.remove(&name);
            }
            (Detach, Some(there)) => {
                there.detach(lab)?;
                *task = None;
                self.ready.remove(&name);
            }
            (step, _) => bail!("{step:?} is not possible"),
        }
        Ok(())
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        let ready = self.tasks.iter().flatten().filter(|task| self.ready.contains(&task.name));
        ready.map(|task| task.container.address()).collect()
    }

    /// Whether a client's node has it so.
    fn check(&self, client: &Container, vip: SocketAddr) -> Result<()> {
        let mut answered = BTreeSet::new();
        for _ in 0..2 * self.tasks.len() {
            match client.netns.enter(|| load::ask(vip, Duration::from_secs(1))) {
                Ok((name, _)) => answered.insert(name),
                Err(error) if is_refused(&error) => break,
                Err(error) => return Err(error),
            };
        }
        ensure!(answered == self.ready, "{answered:?} answer instead of {:?}", self.ready);
        let told = client.netns.run(&["dig", "+short", "@127.0.0.11", "tasks.web"])?;
        let told: BTreeSet<IpAddr> = told.lines().filter_map(|line| line.parse().ok()).collect();
        ensure!(told == self.addresses(), "{told:?} are told instead of {:?}", self.addresses());
        Ok(())
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    let source = error.root_cause().downcast_ref::<io::Error>();
    source.is_some_and(|source| source.kind() == ErrorKind::ConnectionRefused)
}

#[rstest]
#[case::kernel([Kernel; 2])]
#[case::user([User; 2])]
fn s01_s04_case_19_every_order_of_changes_gives_the_right_backends_and_names(
    #[case] planes: [Plane; 2],
) -> Result<()> {
    Cluster::of(&planes).run(|lab| {
        lab.ctl(1, "network create --attachable net")?;
        lab.ctl(1, "service create --name web --network net")?;
        let target = SocketAddr::new(vip(lab)?, PORT);
        let client = lab.container(1, "net")?;
        let mut model = Model { tasks: [None, None], ready: BTreeSet::new() };
        for (place, (number, step)) in STEPS.into_iter().enumerate() {
            model.step(lab, number, step)?;
            let what = format!("step {place}, {step:?} of task {number}");
            until(&what, PATIENCE, || model.check(&client, target))?;
        }
        Ok(())
    })
}
