use port17::control;

use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;

/// Prints the lines that lead a shell's programs into the running client.
pub(crate) async fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let socket = settings.control()?;
    let status = control::status(&socket).await?;
    let Some(proxy) = status.socks else {
        let problem =
            format!("{}: a node answers there, and nodes have no proxy; name a client's socket by --control", socket.display());
        return Err(Failure::new(Kind::Failed, problem));
    };
    // Names must be resolved at the exit, hence socks5h. no_proxy is emptied: its hosts would go directly.
    let socks = format!("socks5h://{proxy}");
    let http = format!("http://{proxy}");
    let variables = [
        ("ALL_PROXY", &*socks),
        ("all_proxy", &socks),
        ("http_proxy", &http),
        ("https_proxy", &http),
        ("HTTPS_PROXY", &http),
        ("no_proxy", ""),
        ("NO_PROXY", ""),
    ];
    let lines: Vec<String> = variables.iter().map(|(name, value)| format!("export {name}={value}")).collect();
    let object: serde_json::Map<String, serde_json::Value> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    output.print(lines.join("\n"), &object)
}
