//! What the command says of itself to shells and to `man`.

use std::fs;

use clap::{Command, CommandFactory};
use clap_complete::Generator;

use crate::arguments::{Arguments, CompletionsArguments, ManArguments, Shell};
use crate::failure::Failure;
use crate::output::write_out;

/// Prints the completion script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut command = Arguments::command();
    command.set_bin_name("port17");
    command.build();
    let mut script = Vec::new();
    shell.try_generate(&command, &mut script).map_err(|error| Failure::system("the completion script", &error))?;
    write_out(&script)
}

/// Prints the manual page of the command, or writes those of all its subcommands into a directory.
pub(crate) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let Some(directory) = &arguments.output else {
        let page = page(Arguments::command().disable_help_subcommand(true))?;
        return write_out(&page.1);
    };
    fs::create_dir_all(directory).map_err(|error| Failure::system(directory.display(), &error))?;
    for (name, text) in pages()? {
        let file = directory.join(name);
        fs::write(&file, text).map_err(|error| Failure::system(file.display(), &error))?;
    }
    Ok(())
}

/// Every page as file name and text: `port17-bottle-show.1` is that of `port17 bottle show`.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut main = Arguments::command().disable_help_subcommand(true);
    main.build();
    let mut pages = Vec::new();
    let mut to_render = vec![main];
    while let Some(command) = to_render.pop() {
        to_render.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.sort();
    Ok(pages)
}

fn page(command: Command) -> Result<(String, Vec<u8>), Failure> {
    let page = clap_mangen::Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| Failure::system("the manual page", &error))?;
    Ok((page.get_filename(), text))
}
