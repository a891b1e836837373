//! Status codes and their reason phrases (RFC 9110 section 15, RFC 6585 for 429 and 431).
//!
//! Owns: the table of codes. Must not know: when a code is used.

/// A status code: three digits, 100 to 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

/// Whether an answer with a status may carry a body (RFC 9110 section 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A body, even an empty one, with its framing.
    Allowed,
    /// Neither a body nor `Content-Length`: 1xx, 204, 304.
    Forbidden,
}

macro_rules! statuses {
    ($($name:ident = $code:literal $phrase:literal;)*) => {
        impl Status {
            $(#[doc = concat!(stringify!($code), " ", $phrase)] pub const $name: Status = Status($code);)*

            /// The reason phrase; empty for a code that this table does not have.
            #[must_use]
            pub const fn phrase(self) -> &'static str {
                match self.0 {
                    $($code => $phrase,)*
                    _ => "",
                }
            }
        }
    };
}

statuses! {
    CONTINUE = 100 "Continue";
    OK = 200 "OK";
    CREATED = 201 "Created";
    ACCEPTED = 202 "Accepted";
    NO_CONTENT = 204 "No Content";
    PARTIAL_CONTENT = 206 "Partial Content";
    MOVED_PERMANENTLY = 301 "Moved Permanently";
    FOUND = 302 "Found";
    SEE_OTHER = 303 "See Other";
    NOT_MODIFIED = 304 "Not Modified";
    TEMPORARY_REDIRECT = 307 "Temporary Redirect";
    PERMANENT_REDIRECT = 308 "Permanent Redirect";
    BAD_REQUEST = 400 "Bad Request";
    UNAUTHORIZED = 401 "Unauthorized";
    FORBIDDEN = 403 "Forbidden";
    NOT_FOUND = 404 "Not Found";
    METHOD_NOT_ALLOWED = 405 "Method Not Allowed";
    NOT_ACCEPTABLE = 406 "Not Acceptable";
    REQUEST_TIMEOUT = 408 "Request Timeout";
    CONFLICT = 409 "Conflict";
    GONE = 410 "Gone";
    LENGTH_REQUIRED = 411 "Length Required";
    PRECONDITION_FAILED = 412 "Precondition Failed";
    CONTENT_TOO_LARGE = 413 "Content Too Large";
    URI_TOO_LONG = 414 "URI Too Long";
    UNSUPPORTED_MEDIA_TYPE = 415 "Unsupported Media Type";
    EXPECTATION_FAILED = 417 "Expectation Failed";
    MISDIRECTED_REQUEST = 421 "Misdirected Request";
    UNPROCESSABLE_CONTENT = 422 "Unprocessable Content";
    TOO_EARLY = 425 "Too Early";
    TOO_MANY_REQUESTS = 429 "Too Many Requests";
    HEADER_FIELDS_TOO_LARGE = 431 "Request Header Fields Too Large";
    INTERNAL_SERVER_ERROR = 500 "Internal Server Error";
    NOT_IMPLEMENTED = 501 "Not Implemented";
    BAD_GATEWAY = 502 "Bad Gateway";
    SERVICE_UNAVAILABLE = 503 "Service Unavailable";
    GATEWAY_TIMEOUT = 504 "Gateway Timeout";
    VERSION_NOT_SUPPORTED = 505 "HTTP Version Not Supported";
}

impl Status {
    /// The status of a code that was chosen at run time, by a function for example; `None` outside of 100 to 999.
    ///
    /// A 1xx code is not an answer: whoever takes a code from a function must refuse it ([`Status::is_interim`]).
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        if code >= 100 && code <= 999 { Some(Self(code)) } else { None }
    }

    /// The code as a number.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether this is 1xx: another status line must follow for the same request.
    #[must_use]
    pub const fn is_interim(self) -> bool {
        self.0 < 200
    }

    /// Whether an answer with this status may have a body.
    #[must_use]
    pub const fn content(self) -> Content {
        match self.0 {
            100..=199 | 204 | 304 => Content::Forbidden,
            _ => Content::Allowed,
        }
    }

    /// The three digits as they stand in a status line.
    #[must_use]
    pub(crate) const fn digits(self) -> [u8; 3] {
        const fn digit(value: u16) -> u8 {
            b'0' + (value % 10).to_le_bytes()[0]
        }
        [digit(self.0 / 100), digit(self.0 / 10), digit(self.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::{Content, Status};

    #[test]
    fn codes_and_phrases() {
        assert_eq!(Status::CONTENT_TOO_LARGE.code(), 413);
        assert_eq!(Status::CONTENT_TOO_LARGE.digits(), *b"413");
        assert_eq!(Status::from_code(404).map(Status::phrase), Some("Not Found"));
        assert_eq!(Status::from_code(299).map(Status::phrase), Some(""));
        for wrong in [0, 99, 1000, u16::MAX] {
            assert_eq!(Status::from_code(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn statuses_without_content() {
        for code in 100..=999 {
            let status = Status::from_code(code).expect("in range");
            let expected =
                if code < 200 || code == 204 || code == 304 { Content::Forbidden } else { Content::Allowed };
            assert_eq!(status.content(), expected, "{code}");
            assert_eq!(status.is_interim(), code < 200, "{code}");
        }
    }
}
