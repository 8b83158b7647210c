//! A page in a browser, as a server sees it: HTTP/1.1 by hand, and gRPC-Web in it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use tonic::Code;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

use super::common::process::LIMIT;

/// How gRPC-Web is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    /// In base 64.
    Text,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text",
        }
    }

    /// The text form comes in pieces of base 64, each with its own end.
    fn decode(self, body: &[u8]) -> Vec<u8> {
        if self == Self::Binary {
            return body.to_vec();
        }
        assert_eq!(body.len() % 4, 0, "base 64 is cut");
        let quads = body.chunks_exact(4);
        quads
            .flat_map(|quad| STANDARD.decode(quad).unwrap())
            .collect()
    }
}

/// A page of an origin.
#[derive(Clone, Debug)]
pub struct Page {
    address: SocketAddr,
    form: Form,
    headers: Vec<(&'static str, String)>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// An answer by gRPC-Web.
#[derive(Debug)]
pub struct Reply {
    pub messages: Vec<Vec<u8>>,
    /// From the last frame; `None` where the status stood in the headers.
    pub trailers: Option<HeaderMap>,
    pub headers: HeaderMap,
}

impl Page {
    pub fn new(address: SocketAddr, form: Form, origin: &str) -> Self {
        Self {
            address,
            form,
            headers: vec![("origin", origin.into())],
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes of a call, on a connection that is used once.
    pub fn request(&self, path: &str, message: &impl Message) -> Vec<u8> {
        let message = message.encode_to_vec();
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        if self.form == Form::Text {
            body = STANDARD.encode(body).into_bytes();
        }
        let form = self.form.name();
        let length = body.len();
        let more = format!(
            "content-type: {form}\r\naccept: {form}\r\nx-grpc-web: 1\r\ncontent-length: {length}\r\n"
        );
        let mut request = self.head("POST", path, &more);
        request.extend(body);
        request
    }

    fn head(&self, method: &str, path: &str, more: &str) -> Vec<u8> {
        let own = self.headers.iter();
        let own: String = own
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{method} {path} HTTP/1.1\r\nhost: mef3\r\nconnection: close\r\n{own}{more}\r\n")
            .into_bytes()
    }

    /// Asks as a browser does before it sends what a page wants to send.
    pub fn preflight(&self, path: &str, wanted: &str) -> Answer {
        let more = format!(
            "access-control-request-method: POST\r\naccess-control-request-headers: {wanted}\r\n"
        );
        send(self.connect(), &self.head("OPTIONS", path, &more)).unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Calls, and takes the answer whatever it is.
    pub fn ask(&self, path: &str, message: &impl Message) -> Answer {
        send(self.connect(), &self.request(path, message)).unwrap()
    }

    /// Calls, and takes an answer by gRPC-Web to its end.
    pub fn call(&self, path: &str, message: &impl Message) -> Reply {
        self.reply(self.ask(path, message))
    }

    /// Reads an answer as one by gRPC-Web.
    pub fn reply(&self, answer: Answer) -> Reply {
        assert_eq!(answer.status, 200, "{answer:?}");
        let form = answer.headers["content-type"].to_str().unwrap();
        assert!(form.starts_with(self.form.name()), "{form}");
        let origin = &self
            .headers
            .iter()
            .find(|(name, _)| *name == "origin")
            .unwrap()
            .1;
        assert_eq!(
            answer.headers["access-control-allow-origin"],
            origin.as_str()
        );
        let seen = answer.headers["access-control-expose-headers"]
            .to_str()
            .unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(seen.contains(name), "{name} in {seen}");
        }
        let mut reply = Reply {
            messages: Vec::new(),
            trailers: None,
            headers: answer.headers,
        };
        let mut rest = &self.form.decode(&answer.body)[..];
        while let [kind, a, b, c, d, after @ ..] = rest {
            assert!(reply.trailers.is_none(), "something follows the trailers");
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (frame, after) = after.split_at(length);
            match kind {
                0 => reply.messages.push(frame.to_vec()),
                0x80 => reply.trailers = Some(headers_of(std::str::from_utf8(frame).unwrap())),
                other => panic!("a frame of kind {other}"),
            }
            rest = after;
        }
        assert!(rest.is_empty(), "a frame is cut");
        reply
    }
}

impl Reply {
    /// The status, wherever it stands.
    pub fn code(&self) -> Code {
        let place = self.trailers.as_ref().unwrap_or(&self.headers);
        Code::from_bytes(place["grpc-status"].as_bytes())
    }

    pub fn only<M: Message + Default>(&self) -> M {
        assert_eq!(self.code(), Code::Ok, "{self:?}");
        assert_eq!(self.messages.len(), 1);
        assert!(self.trailers.is_some(), "{self:?}");
        M::decode(&self.messages[0][..]).unwrap()
    }
}

/// Sends a request, and takes all that comes until the other side is done.
pub fn send(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<Answer> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = bytes.split_at(end.ok_or_else(cut)? + 4);
    let head = std::str::from_utf8(head).map_err(|_| cut())?;
    let (first, head) = head.split_once("\r\n").ok_or_else(cut)?;
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let headers = headers_of(head);
    let body = match headers.get("transfer-encoding") {
        Some(_) => unchunked(body),
        None => body.to_vec(),
    };
    Ok(Answer {
        status: status.and_then(|it| it.parse().ok()).ok_or_else(cut)?,
        headers,
        body,
    })
}

fn headers_of(lines: &str) -> HeaderMap {
    let lines = lines.lines().filter(|line| !line.is_empty());
    let pairs = lines.map(|line| line.split_once(':').unwrap());
    pairs
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value.trim()).unwrap())
        })
        .collect()
}

/// A body that came in chunks, up to its end.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk's length");
        let length = std::str::from_utf8(&rest[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let chunk = &rest[end + 2..];
        if length == 0 {
            return body;
        }
        body.extend(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
}
