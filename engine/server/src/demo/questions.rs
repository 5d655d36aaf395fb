//! The questions that the demo asks in SQL.
//!
//! Called by `demo::run`. Each names its columns as `demo::verify` reads them.

/// Every flight again, whichever way it went.
const FLIGHTS: &str = "with flights as (
  select carrier, month, origin, sched_dep, dep_delay from on_time
  union all select carrier, month, origin, sched_dep, dep_delay from delayed
  union all select carrier, month, origin, sched_dep, dep_delay from cancelled)";

/// Flights and mean delay per carrier and month.
pub fn by_carrier_month() -> String {
    format!(
        "{FLIGHTS}
select carrier, month, count(*) as flights, avg(dep_delay) as mean_delay
from flights group by carrier, month order by carrier, month"
    )
}

/// Flights, mean delay and wind per airport and hour.
pub fn by_hour() -> String {
    format!(
        "{FLIGHTS}
select f.origin, date_bin(interval '1 hour', f.sched_dep) as hour, count(*) as flights,
       avg(f.dep_delay) as mean_delay, avg(w.wind_speed) as wind
from flights f
join weather w on w.origin = f.origin and w.hour = date_bin(interval '1 hour', f.sched_dep)
group by f.origin, date_bin(interval '1 hour', f.sched_dep) order by mean_delay desc nulls last"
    )
}
