//! Places on earth, in degrees of WGS 84.

use super::{Arg, Family, Function, Gives, Kind, Nulls, Shape, Takes};

/// This family.
pub const ALL: &[Function] = &[GEOHASH, GRID, DISTANCE];

const LATITUDE: Arg = Arg::required("latitude", Kind::Column(Takes::Number), "The latitude, -90 to 90.");
const LONGITUDE: Arg = Arg::required("longitude", Kind::Column(Takes::Number), "The longitude, -180 to 180.");
const NO_PLACE: &str = "latitudes and longitudes out of their range";
const NULLS: Nulls = Nulls::Own("null where one of the columns is null");

/// `geohash`
pub const GEOHASH: Function =
    Function::new("geohash", "The geohash of a place; nearby places begin alike.", Shape::Named(Gives::Text))
        .of(Family::Geo)
        .args(&[LATITUDE, LONGITUDE, Arg::default("precision", Kind::Int(1, 12), "7", "Characters; 7 is about 150 m.")])
        .nulls(NULLS)
        .rejects(NO_PLACE)
        .example("geohash: {latitude: lat, longitude: lon, precision: 6, as: cell}");

/// `geoGrid`
pub const GRID: Function = Function::new(
    "geoGrid",
    "The south-west corner of the cell of a grid, as `latitude,longitude`.",
    Shape::Named(Gives::Text),
)
.of(Family::Geo)
.args(&[LATITUDE, LONGITUDE, Arg::default("degrees", Kind::Number, "1", "The width of a cell; above zero.")])
.nulls(NULLS)
.rejects(NO_PLACE)
.example("geoGrid: {latitude: lat, longitude: lon, degrees: 0.5, as: cell}");

/// `geoDistance`
pub const DISTANCE: Function = Function::new(
    "geoDistance",
    "Metres between two places, on a sphere of 6,371,008.8 m (off by 0.5 % at most).",
    Shape::Named(Gives::Double),
)
.of(Family::Geo)
.args(&[
    LATITUDE,
    LONGITUDE,
    Arg::required("toLatitude", Kind::Column(Takes::Number), "The other latitude."),
    Arg::required("toLongitude", Kind::Column(Takes::Number), "The other longitude."),
])
.nulls(NULLS)
.rejects(NO_PLACE)
.example("geoDistance: {latitude: lat, longitude: lon, toLatitude: store_lat, toLongitude: store_lon, as: metres}");
