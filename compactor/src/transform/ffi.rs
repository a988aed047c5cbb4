//! Columns between arrow-rs 58 and Polars on the same memory, through the Arrow C data interface.
//!
//! Both sides declare the two `#[repr(C)]` structs of the interface (Arrow specification, "The Arrow C data
//! interface"), so a struct exported by one is the struct the other imports; ownership and the release callback move
//! along. Numbers, booleans and times share their buffers; text becomes string views over the same bytes on the way in
//! and is gathered again into plain text on the way out, because the Parquet writer takes no views.

use std::sync::Arc;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use arrow_array::{Array, ArrayRef, TimestampMicrosecondArray, make_array};
use arrow_schema::{DataType, TimeUnit};
use firn_shared::error::{Error, Result};
use polars::prelude::{CompatLevel, Series};

/// A Polars series over the memory of `array`.
///
/// # Errors
/// `Config` when Polars has no such type.
#[allow(unsafe_code, reason = "the C data interface hands structs over by value; see the module's comment")]
pub fn to_polars(name: &str, array: &ArrayRef) -> Result<Series> {
    let array = canonical_zone(array);
    let failed = |e: String| Error::config(format!("column `{name}` of type {} in Polars: {e}", array.data_type()));
    let (array_c, schema_c) = to_ffi(&array.to_data()).map_err(|e| failed(e.to_string()))?;
    // SAFETY: FFI_ArrowArray and ArrowArray (and the schemas) are the same #[repr(C)] struct of the specification; the
    // transmute moves it, so exactly one side calls `release`. The contents were exported by arrow-rs from valid data.
    let imported = unsafe {
        let schema: polars_arrow::ffi::ArrowSchema = std::mem::transmute(schema_c);
        let array: polars_arrow::ffi::ArrowArray = std::mem::transmute(array_c);
        polars_arrow::ffi::import_field_from_c(&schema)
            .and_then(|field| polars_arrow::ffi::import_array_from_c(array, field.dtype))
    };
    let imported = imported.map_err(|e| failed(e.to_string()))?;
    Series::from_arrow(name.into(), imported).map_err(|e| failed(e.to_string()))
}

/// The series as an arrow-rs array of type `wanted`; the types may differ in representation only (views, zone names,
/// time units), never in value.
///
/// # Errors
/// `Bug` when a value would change.
#[allow(unsafe_code, reason = "the C data interface hands structs over by value; see the module's comment")]
pub fn from_polars(series: &Series, wanted: &DataType) -> Result<ArrayRef> {
    let series = series.rechunk();
    let failed = |e: String| Error::bug(format!("column `{}` from Polars to {wanted}: {e}", series.name()));
    let exported = series.to_arrow(0, CompatLevel::newest());
    let field = polars_arrow::datatypes::Field::new(series.name().clone(), exported.dtype().clone(), true);
    let schema_c = polars_arrow::ffi::export_field_to_c(&field);
    let array_c = polars_arrow::ffi::export_array_to_c(exported);
    // SAFETY: as in `to_polars`, the other way round.
    let data = unsafe {
        let schema: FFI_ArrowSchema = std::mem::transmute(schema_c);
        let array: FFI_ArrowArray = std::mem::transmute(array_c);
        from_ffi(array, &schema)
    };
    let array = make_array(data.map_err(|e| failed(e.to_string()))?);
    if array.data_type() == wanted {
        return Ok(array);
    }
    let options = arrow_cast::CastOptions { safe: false, ..Default::default() };
    let cast = arrow_cast::cast_with_options(&array, wanted, &options).map_err(|e| failed(e.to_string()))?;
    if cast.null_count() == array.null_count() { Ok(cast) } else { Err(failed("nulls appeared".to_owned())) }
}

/// Bounds Polars' own threads to `threads` (0: one per processor). Only before the process has other threads, and before
/// Polars is first used; afterwards it has no effect.
#[allow(unsafe_code, reason = "Polars takes the bound from the environment, and nowhere else")]
pub fn bound_threads(threads: usize) {
    if threads > 0 {
        // SAFETY: called at the start of the program, while it has one thread; nobody reads the environment meanwhile.
        unsafe { std::env::set_var("POLARS_MAX_THREADS", threads.to_string()) };
    }
}

/// Polars knows zones by name; tables carry `+00:00`. Same instants, same buffer.
fn canonical_zone(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            match array.as_any().downcast_ref::<TimestampMicrosecondArray>() {
                Some(times) => Arc::new(times.clone().with_timezone("UTC")),
                None => Arc::clone(array),
            }
        }
        _ => Arc::clone(array),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int64Type;
    use arrow_array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray,
        Time64MicrosecondArray,
    };

    use super::*;

    fn samples() -> Vec<(&'static str, ArrayRef)> {
        let utc = TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1_626_847_200_123_456)]);
        vec![
            ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            ("int", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(7)]))),
            ("long", Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(-7)]))),
            ("double", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-0.0)]))),
            (
                "decimal",
                Arc::new(
                    Decimal128Array::from(vec![Some(12345), None, Some(-1)]).with_precision_and_scale(38, 2).unwrap(),
                ),
            ),
            ("date", Arc::new(Date32Array::from(vec![Some(-3), None, Some(20_000)]))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)]))),
            ("timestamp", Arc::new(utc.clone())),
            ("timestamptz", Arc::new(utc.with_timezone("+00:00"))),
            ("string", Arc::new(StringArray::from(vec![Some("ä long enough to leave the view"), None, Some("")]))),
            (
                "list",
                Arc::new(arrow_array::ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                    Some(vec![Some(1), None]),
                    None,
                    Some(vec![]),
                ])),
            ),
        ]
    }

    #[test]
    fn every_type_comes_back_as_it_went_even_when_sliced() {
        for (name, array) in samples() {
            for part in [Arc::clone(&array), array.slice(1, 2), array.slice(0, 0)] {
                let back = from_polars(&to_polars(name, &part).unwrap(), part.data_type()).unwrap();
                assert_eq!(&back, &part, "{name}");
            }
        }
    }

    #[test]
    fn numbers_share_their_memory() {
        let array: ArrayRef = Arc::new(Int64Array::from((0..1000).collect::<Vec<i64>>()));
        let series = to_polars("n", &array).unwrap();
        let back = from_polars(&series, &DataType::Int64).unwrap();
        assert_eq!(array.to_data().buffers()[0].as_ptr(), back.to_data().buffers()[0].as_ptr());
    }
}
