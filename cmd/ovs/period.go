package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// period is the value of a flag for a time, of weeks or days too: 2w, 10d, 36h, 1h30m. A flag of 0
// means never, and is a negative period; a period of zero was not given.
type period time.Duration

// String implements pflag.Value.
func (p *period) String() string {
	d := time.Duration(*p)
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0"
	case d == 0:
		return ""
	case d%(7*day) == 0:
		return fmt.Sprintf("%dw", d/(7*day))
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// Type implements pflag.Value.
func (p *period) Type() string { return "time" }

// Set implements pflag.Value.
func (p *period) Set(s string) error {
	d, err := parsePeriod(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no time: write 2w, 10d, 36h or 90m", s)
	}
	if *p = period(d); d == 0 {
		*p = -1
	}
	return nil
}

func parsePeriod(s string) (time.Duration, error) {
	for unit, d := range map[string]time.Duration{"w": 7 * 24 * time.Hour, "d": 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 16)
			return time.Duration(n) * d, err
		}
	}
	return time.ParseDuration(s)
}
