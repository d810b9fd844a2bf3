use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, DemoArguments};
use crate::failure::{Failure, Kind};
use crate::output::Output;

/// Runs a whole mesh on this machine and downloads through it.
pub(crate) async fn run(arguments: DemoArguments, output: Output) -> Result<(), Failure> {
    check(&arguments)?;
    let DemoArguments { check, processes, nodes, hops, ready_file } = arguments;
    let _ = (check, processes, nodes, hops, ready_file, output);
    Err(Failure::new(Kind::Failed, "this build has no demo"))
}

fn check(arguments: &DemoArguments) -> Result<(), Failure> {
    let DemoArguments { nodes, hops, .. } = arguments;
    if hops > nodes {
        let problem = format!("{hops} hops need as many nodes: --nodes {nodes} is too few for --hops {hops}");
        let error = Arguments::command().error(ErrorKind::ValueValidation, problem);
        return Err(Failure::new(Kind::Usage, error.render().to_string().trim_start_matches("error: ")));
    }
    if *hops < 3 {
        eprintln!("port17: {hops} of at least 3 hops: for measuring only; such a route hides little");
    }
    Ok(())
}
