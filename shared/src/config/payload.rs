//! What payloads are, and in which forms their values come. Re-exported by [`super::domain`].

/// The form of a time in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339 text.
    Rfc3339,
    /// Seconds since the epoch, number or text, fraction allowed.
    EpochSeconds,
    /// Milliseconds since the epoch.
    EpochMillis,
    /// Microseconds since the epoch.
    EpochMicros,
    /// Nanoseconds since the epoch.
    EpochNanos,
    /// Days since the epoch.
    EpochDays,
    /// A `chrono` strftime pattern; UTC when the pattern has no offset.
    Strftime(String),
}

/// The form of a value in JSON, where its type alone does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A date or time. Debezium's times of day count from midnight.
    Time(TimeFormat),
    /// A number as base64 of its unscaled value, big-endian two's complement, with so many digits after the point: what
    /// Kafka Connect makes of `org.apache.kafka.connect.data.Decimal`.
    Base64 {
        /// Digits after the point.
        scale: u8,
    },
    /// The same with whatever scale a Connect schema says, `None` when it says none; with `decimal.format=NUMERIC` the
    /// converter writes JSON numbers. Known from the schema only.
    ConnectDecimal {
        /// Digits after the point; negative for zeros before it.
        scale: Option<i32>,
    },
    /// A number as `{"scale": 2, "value": "<base64>"}` (`io.debezium.data.VariableScaleDecimal`).
    VariableScale,
    /// A number as base64 of its bytes, lowest first (`io.debezium.data.Bits`).
    Bits,
    /// 0 and 1 for false and true.
    ZeroOne,
    /// A JSON value inside a JSON string (`io.debezium.data.Json`).
    JsonText,
}

/// What the payloads of a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadFormat {
    /// A JSON object is a row.
    #[default]
    Json,
    /// Change events of Debezium as JSON: with or without schema, or flattened to the row after the change.
    Debezium,
    /// Records of DynamoDB Streams as JSON.
    Dynamodb,
}

impl PayloadFormat {
    /// Whether a record is a change of a row, not a row.
    #[must_use]
    pub fn is_change(self) -> bool {
        self != Self::Json
    }
}
