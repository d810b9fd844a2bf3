//! The command `port17`: arguments, output and exit codes. What it does is in the library.

mod arguments;
mod bottle;
mod check;
mod daemon;
mod demo;
mod duration;
mod environment;
mod failure;
mod init;
mod manual;
mod map;
mod network;
mod output;
mod reload;
mod route;
mod settings;
mod simulate;
mod status;
mod table;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Failure;
use output::Output;
use settings::Settings;

fn main() -> ExitCode {
    #[cfg(feature = "planted")]
    if !port17_proto::planted::choose_among(port17::planted::FAULTS, std::env::var("PORT17_PLANTED").ok().as_deref()) {
        eprintln!("PORT17_PLANTED names no planted fault");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    match run(arguments, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.fail(&failure),
    }
}

fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let is_daemon = matches!(arguments.command, Command::Node(_) | Command::Client(_));
    output::start_log(arguments.verbose, is_daemon);
    let settings = Settings::new(arguments.config, arguments.control);
    match arguments.command {
        Command::Init(init) => init::run(&init, &settings, output),
        Command::Node(daemon) => daemon::run_node(&settings, &daemon),
        Command::Client(daemon) => daemon::run_client(&settings, &daemon),
        Command::Simulate(simulate) => simulate::run(&simulate, output),
        Command::Demo(demo) => daemon::block_on(demo::run(demo, output))?,
        Command::Bottle(command) => bottle::run(command, &settings, output),
        Command::Network(command) => network::run(command, output),
        Command::Check => check::run(&settings, output),
        Command::Env => daemon::block_on(environment::run(&settings, output))?,
        Command::Status => daemon::block_on(status::run(&settings, output))?,
        Command::Reload => daemon::block_on(reload::run(&settings, output))?,
        Command::Map(map) => daemon::block_on(map::run(&map, &settings, output))?,
        Command::Route(route) => daemon::block_on(route::run(route, &settings, output))?,
        Command::Completions(completions) => manual::completions(&completions),
        Command::Man(man) => manual::man(&man),
    }
}
