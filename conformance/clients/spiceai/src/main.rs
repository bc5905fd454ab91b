//! Queries `spiced` through the Spice Rust SDK and prints the rows, one JSON object per line.
//!
//! `spiceai-client FLIGHT_URL CA_FILE|- rows SQL [PARAMETERS]`, where PARAMETERS is a JSON array;
//! `… count SQL` prints the number of rows; `… ready HTTP_URL` queries `/v1/ready`. `SPICED_CLIENT_KEY` is the API key.

use std::error::Error;
use std::process::ExitCode;

use serde_json::Value;
use spiceai::arrow::json::LineDelimitedWriter;
use spiceai::{Client, ClientBuilder, QueryParameter, QueryParameters, StreamExt};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut step: Option<&dyn Error> = Some(error.as_ref());
            while let Some(cause) = step {
                eprintln!("{cause}");
                step = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Outcome {
    match words {
        [flight, ca, "rows", sql] => rows(&client(flight, ca, None).await?, sql, QueryParameters::new()).await,
        [flight, ca, "rows", sql, parameters] => {
            let parameters = serde_json::from_str::<Vec<Value>>(parameters)?.iter().map(parameter).collect();
            rows(&client(flight, ca, None).await?, sql, parameters).await
        }
        [flight, ca, "count", sql] => count(&client(flight, ca, None).await?, sql).await,
        [flight, ca, "ready", http] => {
            println!("{}", client(flight, ca, Some(http)).await?.is_ready().await?);
            Ok(())
        }
        _ => Err("usage: spiceai-client FLIGHT_URL CA_FILE|- rows SQL [PARAMETERS] | count SQL | ready HTTP_URL".into()),
    }
}

async fn client(flight: &str, ca: &str, http: Option<&str>) -> Outcome<Client> {
    let mut builder = ClientBuilder::new().flight_url(flight);
    if ca != "-" {
        builder = builder.tls_ca_certificate_file(ca);
    }
    if let Ok(key) = std::env::var("SPICED_CLIENT_KEY") {
        builder = builder.api_key(&key);
    }
    if let Some(http) = http {
        builder = builder.http_url(http);
    }
    builder.build().await
}

async fn rows(client: &Client, sql: &str, parameters: QueryParameters) -> Outcome {
    let mut stream = client.sql_with_bindings(sql, parameters).await?;
    let mut writer = LineDelimitedWriter::new(std::io::stdout().lock());
    while let Some(batch) = stream.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()?;
    Ok(())
}

async fn count(client: &Client, sql: &str) -> Outcome {
    let mut stream = client.sql(sql).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.num_rows();
    }
    println!("{rows}");
    Ok(())
}

fn parameter(value: &Value) -> QueryParameter {
    match value {
        Value::Bool(value) => QueryParameter::Boolean(Some(*value)),
        Value::Number(number) if number.is_i64() => QueryParameter::Int64(number.as_i64()),
        Value::Number(number) => QueryParameter::Float64(number.as_f64()),
        Value::String(text) => QueryParameter::Utf8(Some(text.clone())),
        _ => QueryParameter::Utf8(None),
    }
}
