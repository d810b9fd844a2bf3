use port17::control::{self, Reloaded};

use crate::failure::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Lets the running daemon look again at what it was configured with, and at its network's sources.
pub(crate) async fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let reloaded = control::reload(&settings.control()?).await?;
    output.print(describe(&reloaded), &reloaded)
}

fn describe(reloaded: &Reloaded) -> String {
    let mut text = "reloaded; the network's sources are asked now\n".to_owned();
    for changed in &reloaded.changed {
        text.push_str(&format!("changed: {changed}\n"));
    }
    if !reloaded.needs_restart.is_empty() {
        text.push_str(&format!("changes at the next start: {}\n", reloaded.needs_restart.join(", ")));
    }
    text
}
