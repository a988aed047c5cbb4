//! Places on earth, in degrees of WGS 84.

use super::{Arg, Family, Function, Gives, Kind, Nulls, Planner, Shape, Takes};

/// This family.
pub const ALL: &[Function] = &[GEOHASH, GRID, DISTANCE];

const LATITUDE: Arg = Arg::required("latitude", Kind::Column(Takes::Number), "The latitude, -90 to 90.");
const LONGITUDE: Arg = Arg::required("longitude", Kind::Column(Takes::Number), "The longitude, -180 to 180.");
const AS: Arg = Arg::required("as", Kind::NewColumn, "The result, a new column.");
const NO_PLACE: &str = "latitudes and longitudes out of their range";
const NULLS: Nulls = Nulls::Own("null where one of the columns is null");

/// `geohash`
pub const GEOHASH: Function =
    Function::new("geohash", "The geohash of a place; nearby places begin alike.", Shape::Make(geohash))
        .of(Family::Geo)
        .args(&[
            LATITUDE,
            LONGITUDE,
            Arg::default("precision", Kind::Int(1, 12), "7", "Characters; 7 is about 150 m."),
            AS,
        ])
        .nulls(NULLS)
        .rejects(NO_PLACE)
        .example("geohash: {latitude: lat, longitude: lon, precision: 6, as: cell}");

fn geohash(p: &mut Planner<'_>) -> Option<()> {
    of_places(p, &["latitude", "longitude"], Gives::Text)
}

/// `geoGrid`
pub const GRID: Function = Function::new(
    "geoGrid",
    "The south-west corner of the cell of a grid, as `latitude,longitude`.",
    Shape::Make(grid),
)
.of(Family::Geo)
.args(&[LATITUDE, LONGITUDE, Arg::default("degrees", Kind::Number, "1", "The width of a cell; above zero."), AS])
.nulls(NULLS)
.rejects(NO_PLACE)
.example("geoGrid: {latitude: lat, longitude: lon, degrees: 0.5, as: cell}");

fn grid(p: &mut Planner<'_>) -> Option<()> {
    of_places(p, &["latitude", "longitude"], Gives::Text)
}

/// `geoDistance`
pub const DISTANCE: Function = Function::new(
    "geoDistance",
    "Metres between two places, on a sphere of 6,371,008.8 m (off by 0.5 % at most).",
    Shape::Make(distance),
)
.of(Family::Geo)
.args(&[
    LATITUDE,
    LONGITUDE,
    Arg::required("toLatitude", Kind::Column(Takes::Number), "The other latitude."),
    Arg::required("toLongitude", Kind::Column(Takes::Number), "The other longitude."),
    AS,
])
.nulls(NULLS)
.rejects(NO_PLACE)
.example("geoDistance: {latitude: lat, longitude: lon, toLatitude: store_lat, toLongitude: store_lon, as: metres}");

fn distance(p: &mut Planner<'_>) -> Option<()> {
    of_places(p, &["latitude", "longitude", "toLatitude", "toLongitude"], Gives::Double)
}

fn of_places(p: &mut Planner<'_>, columns: &[&str], gives: Gives) -> Option<()> {
    let to = p.args.opt_text("as")?.to_owned();
    let reads: Vec<Option<usize>> = columns.iter().map(|column| p.read(column)).collect();
    let r#type = gives.fixed(p.args);
    p.add("as", &to, r#type);
    reads.into_iter().collect::<Option<Vec<usize>>>().map(drop)
}
