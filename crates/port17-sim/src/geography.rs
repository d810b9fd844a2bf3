//! Where hosts stand, and how long a packet takes between them.
//!
//! The cities are real, their latencies synthetic: the great circle at two thirds of the speed of light, a third longer since cables
//! take no straight way, and a millisecond at each end.

/// A city.
#[derive(Debug, Clone, Copy)]
pub struct City {
    /// Its name.
    pub name: &'static str,
    /// Degrees north of the equator.
    pub latitude: f64,
    /// Degrees east of Greenwich.
    pub longitude: f64,
    /// How often a host stands there, of all weights.
    pub weight: u64,
}

const fn city(name: &'static str, latitude: f64, longitude: f64, weight: u64) -> City {
    City { name, latitude, longitude, weight }
}

/// Where servers and people are, roughly.
pub const CITIES: [City; 40] = [
    city("Amsterdam", 52.37, 4.90, 8),
    city("Athens", 37.98, 23.73, 1),
    city("Atlanta", 33.75, -84.39, 3),
    city("Auckland", -36.85, 174.76, 1),
    city("Bangalore", 12.97, 77.59, 2),
    city("Bogota", 4.71, -74.07, 1),
    city("Bucharest", 44.43, 26.10, 3),
    city("Buenos Aires", -34.60, -58.38, 1),
    city("Cape Town", -33.92, 18.42, 1),
    city("Chicago", 41.88, -87.63, 4),
    city("Dallas", 32.78, -96.80, 4),
    city("Dubai", 25.20, 55.27, 1),
    city("Falkenstein", 50.48, 12.37, 8),
    city("Frankfurt", 50.11, 8.68, 10),
    city("Helsinki", 60.17, 24.94, 6),
    city("Hong Kong", 22.32, 114.17, 2),
    city("Istanbul", 41.01, 28.98, 1),
    city("Jakarta", -6.21, 106.85, 1),
    city("Kyiv", 50.45, 30.52, 2),
    city("Lagos", 6.52, 3.38, 1),
    city("London", 51.51, -0.13, 6),
    city("Los Angeles", 34.05, -118.24, 4),
    city("Madrid", 40.42, -3.70, 2),
    city("Mexico City", 19.43, -99.13, 1),
    city("Miami", 25.76, -80.19, 2),
    city("Montreal", 45.50, -73.57, 4),
    city("Mumbai", 19.08, 72.88, 2),
    city("Nairobi", -1.29, 36.82, 1),
    city("New York", 40.71, -74.01, 5),
    city("Oslo", 59.91, 10.75, 2),
    city("Paris", 48.86, 2.35, 7),
    city("Prague", 50.08, 14.44, 2),
    city("Santiago", -33.45, -70.67, 1),
    city("Sao Paulo", -23.55, -46.63, 2),
    city("Seattle", 47.61, -122.33, 3),
    city("Singapore", 1.35, 103.82, 3),
    city("Stockholm", 59.33, 18.07, 4),
    city("Sydney", -33.87, 151.21, 2),
    city("Tokyo", 35.68, 139.65, 3),
    city("Zurich", 47.38, 8.54, 3),
];

const EARTH_KM: f64 = 6371.0;
const FIBRE_KM_PER_MS: f64 = 200.0;
const DETOUR: f64 = 4.0 / 3.0;
const ENDS_US: u64 = 2000;

/// How long a packet takes one way, in microseconds.
pub fn latency_us(one: &City, other: &City) -> u64 {
    let (lat1, lat2) = (one.latitude.to_radians(), other.latitude.to_radians());
    let (dlat, dlon) = (lat2 - lat1, (other.longitude - one.longitude).to_radians());
    let a = (dlat / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
    let km = 2.0 * EARTH_KM * a.sqrt().clamp(0.0, 1.0).asin();
    let ms = km / FIBRE_KM_PER_MS * DETOUR;
    // A few hundred milliseconds at most.
    ENDS_US + (ms * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(one: &str, other: &str) -> u64 {
        let find = |name| CITIES.iter().find(|city| city.name == name).unwrap();
        latency_us(find(one), find(other)) / 1000
    }

    #[test]
    fn latencies_are_about_what_they_are_in_the_world() {
        assert_eq!(between("Paris", "Paris"), 2);
        assert!((4..10).contains(&between("Amsterdam", "London")), "{}", between("Amsterdam", "London"));
        assert!((35..48).contains(&between("London", "New York")));
        assert!((100..140).contains(&between("London", "Sydney")));
        assert_eq!(between("Tokyo", "Miami"), between("Miami", "Tokyo"));
    }
}
