"""The cities of the simulated world, and distances between places."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

EARTH_RADIUS_KM: Final = 6371.0


class City(NamedTuple):
    """A city with its terminals and, where it has a currency, account holders."""

    name: str
    country: str
    latitude: float
    longitude: float
    utc_offset: float
    """Hours ahead of UTC in winter."""
    weight: float
    """Relative number of terminals and inhabitants."""
    currency: str | None
    """Currency of the accounts held here; None where the card issuer has no customers."""


# Small worlds take a prefix of this list, so distant cities come early.
CITIES: Final = (
    City("Paris", "FR", 48.857, 2.352, 1, 10.0, "EUR"),
    City("New York", "US", 40.713, -74.006, -5, 4.0, "USD"),
    City("London", "GB", 51.507, -0.128, 0, 8.0, "GBP"),
    City("Berlin", "DE", 52.520, 13.405, 1, 7.0, "EUR"),
    City("Madrid", "ES", 40.417, -3.704, 1, 6.0, "EUR"),
    City("Bangkok", "TH", 13.756, 100.502, 7, 0.8, None),
    City("Milan", "IT", 45.464, 9.190, 1, 5.0, "EUR"),
    City("Amsterdam", "NL", 52.368, 4.904, 1, 4.0, "EUR"),
    City("Brussels", "BE", 50.850, 4.352, 1, 4.0, "EUR"),
    City("Istanbul", "TR", 41.008, 28.978, 3, 1.0, None),
    City("Vienna", "AT", 48.208, 16.374, 1, 3.0, "EUR"),
    City("Lisbon", "PT", 38.722, -9.139, 0, 3.0, "EUR"),
    City("Zurich", "CH", 47.377, 8.541, 1, 2.5, "CHF"),
    City("Dubai", "AE", 25.205, 55.271, 4, 0.8, None),
    City("Munich", "DE", 48.135, 11.582, 1, 4.0, "EUR"),
    City("Lyon", "FR", 45.764, 4.836, 1, 3.5, "EUR"),
    City("Rome", "IT", 41.903, 12.496, 1, 4.0, "EUR"),
    City("Barcelona", "ES", 41.387, 2.168, 1, 4.5, "EUR"),
    City("Prague", "CZ", 50.075, 14.438, 1, 0.9, None),
    City("Tokyo", "JP", 35.690, 139.692, 9, 0.8, None),
    City("Hamburg", "DE", 53.551, 9.994, 1, 3.5, "EUR"),
    City("Dublin", "IE", 53.350, -6.260, 0, 2.5, "EUR"),
    City("Manchester", "GB", 53.481, -2.243, 0, 3.0, "GBP"),
    City("Marseille", "FR", 43.297, 5.370, 1, 2.5, "EUR"),
    City("Athens", "GR", 37.984, 23.728, 2, 2.5, "EUR"),
    City("Warsaw", "PL", 52.230, 21.012, 1, 0.9, None),
    City("Marrakesh", "MA", 31.629, -7.982, 1, 0.6, None),
    City("Helsinki", "FI", 60.170, 24.938, 2, 2.0, "EUR"),
    City("Cologne", "DE", 50.938, 6.960, 1, 2.5, "EUR"),
    City("Naples", "IT", 40.852, 14.268, 1, 2.0, "EUR"),
    City("Valencia", "ES", 39.470, -0.377, 1, 2.0, "EUR"),
    City("Porto", "PT", 41.158, -8.629, 0, 1.8, "EUR"),
    City("Copenhagen", "DK", 55.676, 12.568, 1, 0.9, None),
    City("Stockholm", "SE", 59.329, 18.069, 1, 0.9, None),
    City("Chicago", "US", 41.878, -87.630, -6, 2.0, "USD"),
    City("Budapest", "HU", 47.498, 19.040, 1, 0.8, None),
    City("Toulouse", "FR", 43.605, 1.444, 1, 1.8, "EUR"),
    City("Turin", "IT", 45.070, 7.687, 1, 1.8, "EUR"),
    City("Frankfurt", "DE", 50.111, 8.682, 1, 2.2, "EUR"),
    City("Antwerp", "BE", 51.219, 4.402, 1, 1.6, "EUR"),
    City("Rotterdam", "NL", 51.924, 4.478, 1, 1.8, "EUR"),
    City("Seville", "ES", 37.389, -5.984, 1, 1.6, "EUR"),
    City("Edinburgh", "GB", 55.953, -3.188, 0, 1.6, "GBP"),
    City("Geneva", "CH", 46.204, 6.143, 1, 1.4, "CHF"),
    City("Cairo", "EG", 30.044, 31.236, 2, 0.5, None),
    City("Singapore", "SG", 1.352, 103.820, 8, 0.6, None),
    City("Los Angeles", "US", 34.052, -118.244, -8, 1.5, "USD"),
    City("Rio de Janeiro", "BR", -22.907, -43.173, -3, 0.5, None),
    City("Cape Town", "ZA", -33.925, 18.424, 2, 0.5, None),
    City("Sydney", "AU", -33.869, 151.209, 10, 0.5, None),
)


def distance_km(
    latitude_a: npt.ArrayLike,
    longitude_a: npt.ArrayLike,
    latitude_b: npt.ArrayLike,
    longitude_b: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Great-circle distance in kilometres of places in degrees, elementwise (haversine formula)."""
    phi_a, phi_b = np.radians(latitude_a), np.radians(latitude_b)
    half_phi = (phi_b - phi_a) / 2
    half_lambda = (np.radians(longitude_b) - np.radians(longitude_a)) / 2
    h = np.sin(half_phi) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin(half_lambda) ** 2
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0, 1))))
