use port17::portmaster::{Portmaster, Verdict};
use tokio::net::TcpListener;

use crate::world::World;

/// Law 7: a verdict that is not the tunnel is a refusal, and nothing goes out.
#[tokio::test]
async fn a_proxy_connection_is_never_sent_directly() {
    for verdict in [Verdict::Direct, Verdict::Block] {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = origin.local_addr().unwrap();
        let untouched = async move {
            let _ = origin.accept().await;
            panic!("somebody reached the origin");
        };
        let world = World::with(address, untouched, Portmaster::always(verdict)).await;
        let [high, low] = address.port().to_be_bytes();

        let socks5 = world.exchange_open(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low]).await;
        assert_eq!(socks5[2..4], [5, 2]);
        let socks4 = world.exchange_open(&[4, 1, high, low, 127, 0, 0, 1, 0]).await;
        assert_eq!(socks4[1], 0x5b);
        let connect = world.exchange_open(format!("CONNECT {address} HTTP/1.1\r\n\r\n").as_bytes()).await;
        assert!(connect.starts_with(b"HTTP/1.1 403"));
        let get = world.exchange_open(format!("GET http://{address}/ HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert!(get.starts_with(b"HTTP/1.0 403") || get.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&get));
        assert!(world.opened().is_empty());
    }
}
