//! The configuration file. The input is its text.

use std::path::Path;

use port17::config::{Config, ConfigError, Places};

const PATH: &str = "/etc/port17/port17.toml";

/// Reads a configuration.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let places = Places::of_the_system();
    match Config::parse(text, Path::new(PATH), &places) {
        Ok(config) => {
            check(&config);
            let written = config.to_toml();
            let back = Config::parse(&written, Path::new(PATH), &places);
            assert_eq!(back.expect("what is written can be read"), config, "{written}");
        }
        Err(ConfigError::Invalid(wrong)) => {
            assert!(wrong.path == Path::new(PATH) && !wrong.key.is_empty() && !wrong.problem.contains('\n'));
            assert!((1..=text.lines().count() + 1).contains(&wrong.line), "line {} of the text", wrong.line);
        }
        Err(error @ ConfigError::Read { .. }) => panic!("nothing was read: {error}"),
    }
}

/// What can hurt is named.
fn check(config: &Config) {
    let client = &config.client;
    assert!(client.proxy.ip().is_loopback() || client.danger_proxy_listen);
    assert!((1..=6).contains(&client.danger_min_hops));
    assert!(client.hops.is_none_or(|hops| (client.danger_min_hops..=6).contains(&hops)));
    assert!(config.node.listen.len() <= 8 && config.node.addresses.len() <= 8);
    assert!([&config.state, &config.control, &config.bottles, &config.identity.dir].iter().all(|path| path.is_absolute()));
}

/// Nothing, everything, and what is wrong in ways that people get wrong.
pub fn seeds() -> Vec<Vec<u8>> {
    let everything = r#"label = "my-node"
group = "us"
parameters = "demo"
bottles = "b"
neighbours = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
state = "/var/lib/port17"
control = "/run/port17/c.sock"
[identity]
dir = "keys"
[node]
listen = ["0.0.0.0:1717", "[::]:1717"]
addresses = ["192.0.2.1:1717"]
accept_clients = false
[exit]
policy = ["reject * private:*", "accept tcp *:80,443"]
danger_exit_private = ["10.0.0.0/8:80"]
[exit.hosts]
"origin.demo" = "127.0.0.1"
[client]
proxy = "0.0.0.0:1080"
danger_proxy_listen = true
hops = 2
danger_min_hops = 1
"#;
    let texts = [
        "",
        everything,
        "network = \"n.network.toml\"\n[client]\nguard = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n",
        "[client]\nhops = 2\n",
        "[client]\nproxy = \"192.0.2.1:1080\"\n",
        "[exit]\npolicy = [\"accept tcp *:99999\"]\n",
        "labl = 1\n",
        "[node]\nlisten = [\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
