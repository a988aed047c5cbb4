//! Places on earth.

use std::fmt::Write;
use std::sync::Arc;

use arrow_array::Float64Array;
use arrow_array::builder::StringBuilder;
use firn_shared::error::Result;
use firn_shared::functions::{Function, geo as spec};

use super::numbers::{Cells, doubles};
use crate::transform::kernel::{Batch, Build, Call, Made, Misfit, Why, Work, broken};
use crate::transform::values::{Rejects, batch};

/// This family.
pub const TABLE: &[(&Function, Build)] = &[(&spec::GEOHASH, geohash), (&spec::GRID, grid), (&spec::DISTANCE, distance)];

/// The mean radius of the earth, metres (IUGG).
const RADIUS: f64 = 6_371_008.8;

/// Latitude and longitude of the columns from this number on; what is out of range is rejected.
fn places(batch: &Batch<'_>, first: usize, rejects: &mut Rejects<'_>) -> Result<Vec<Option<(f64, f64)>>> {
    let (latitudes, longitudes) = (doubles(batch.column(first)?)?, doubles(batch.column(first + 1)?)?);
    let places = latitudes.iter().zip(&longitudes).enumerate().map(|(row, (latitude, longitude))| {
        let (latitude, longitude) = latitude.zip(longitude)?;
        let fits = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        rejects.sieve(row, if fits { Ok((latitude, longitude)) } else { Err(Why::range("no place on earth")) })
    });
    Ok(places.collect())
}

/// Text of each place.
fn text_of(work: impl Fn(f64, f64, &mut String) -> Result<(), Why> + Send + Sync + 'static) -> Work {
    batch(move |batch| {
        let mut rejects = Rejects::new(batch.column(0)?.name);
        let places = places(batch, 0, &mut rejects)?;
        let mut out = StringBuilder::with_capacity(places.len(), places.len() * 8);
        let mut text = String::new();
        for (row, place) in places.into_iter().enumerate() {
            text.clear();
            let there =
                place.and_then(|(latitude, longitude)| rejects.sieve(row, work(latitude, longitude, &mut text)));
            out.append_option(there.map(|()| text.as_str()));
        }
        rejects.found.sort_by_key(|(row, _)| *row);
        Ok(Made { columns: vec![Arc::new(out.finish())], rejects: rejects.found })
    })
}

/// Degrees before the northern and the eastern end. The crate takes the end of the last cell for the beginning of the first
/// one, the north pole for the south pole; a cell of twelve characters is some hundred times as wide.
const END: f64 = 1e-9;

fn geohash(call: &Call<'_>) -> Result<Work, Misfit> {
    let precision = call.args.int("precision").map_err(broken)? as usize;
    Ok(text_of(move |latitude, longitude, out| {
        let place = geohash::Coord { x: longitude.min(180.0 - END), y: latitude.min(90.0 - END) };
        let hash = geohash::encode(place, precision);
        out.push_str(&hash.map_err(|_| Why::range("no place on earth"))?);
        Ok(())
    }))
}

fn grid(call: &Call<'_>) -> Result<Work, Misfit> {
    let degrees = call.args.number("degrees").map_err(broken)?;
    if degrees <= 0.0 || degrees > 180.0 {
        return Err(("degrees", "must be above 0, up to 180".to_owned()));
    }
    // As many digits as the width has, so that corners have one spelling.
    let cells = Cells::new(degrees, 0.0);
    let digits = cells.digits();
    let corner = move |v: f64| {
        let corner = cells.edge_below(v);
        if corner == 0.0 { 0.0 } else { corner }
    };
    Ok(text_of(move |latitude, longitude, out| {
        // Writing into text cannot fail.
        let _ = write!(out, "{:.digits$},{:.digits$}", corner(latitude), corner(longitude));
        Ok(())
    }))
}

fn distance(_: &Call<'_>) -> Result<Work, Misfit> {
    Ok(batch(|batch| {
        let mut rejects = Rejects::new(batch.column(0)?.name);
        let (from, to) = (places(batch, 0, &mut rejects)?, places(batch, 2, &mut rejects)?);
        // A row is rejected once, for its first place that is none.
        rejects.found.sort_by_key(|(row, _)| *row);
        rejects.found.dedup_by_key(|(row, _)| *row);
        let metres = from.into_iter().zip(to).map(|(from, to)| Some(haversine(from?, to?)));
        Ok(Made { columns: vec![Arc::new(metres.collect::<Float64Array>())], rejects: rejects.found })
    }))
}

fn haversine((latitude, longitude): (f64, f64), (to_latitude, to_longitude): (f64, f64)) -> f64 {
    let (one, two) = (latitude.to_radians(), to_latitude.to_radians());
    let (up, along) = ((two - one) / 2.0, (to_longitude - longitude).to_radians() / 2.0);
    let a = up.sin().powi(2) + one.cos() * two.cos() * along.sin().powi(2);
    2.0 * RADIUS * a.sqrt().min(1.0).asin()
}
