package wire

import (
	"fmt"
	"time"
)

// Limits bound what one connection may take. The zero value of a field is its default.
type Limits struct {
	Body         int           // bytes of the longest body that is taken; BodyMax
	SmallWindow  int           // bytes of messages up to 64 KiB that a peer may have with us, for each priority; 8 MiB
	LargeWindow  int           // the same of longer ones; 68 MiB, at least twice Body and a header
	Requests     int           // of clients in flight; 1024
	Maintenances int           // of maintenance in flight; 256
	Handshake    time.Duration // over connecting, TLS and prefaces; 10 s
	Ping         time.Duration // a peer that is silent for so long is asked; for twice as long again, it is dead; 3 s
	Stall        time.Duration // for one frame to come, or to be taken, once it has begun; 10 s
	Whole        time.Duration // from the first frame of a message to its last; 2 min
}

// withDefaults returns the limits with defaults filled in, or says which makes no sense.
func (l Limits) withDefaults() (Limits, error) {
	orInt := func(v *int, or int) {
		if *v == 0 {
			*v = or
		}
	}
	orTime := func(v *time.Duration, or time.Duration) {
		if *v == 0 {
			*v = or
		}
	}
	orInt(&l.Body, BodyMax)
	orInt(&l.SmallWindow, 8<<20)
	orInt(&l.LargeWindow, int(max(largeWindowMin(int64(l.Body)), 68<<20)))
	orInt(&l.Requests, 1024)
	orInt(&l.Maintenances, 256)
	orTime(&l.Handshake, 10*time.Second)
	orTime(&l.Ping, 3*time.Second)
	orTime(&l.Stall, 10*time.Second)
	orTime(&l.Whole, 2*time.Minute)
	switch {
	case l.Body < 0 || l.Body > BodyMax:
		return l, fmt.Errorf("wire: Limits.Body is %d; it must be between 0 and %d", l.Body, BodyMax)
	case l.SmallWindow < smallWindowMin || l.SmallWindow > 1<<30:
		return l, fmt.Errorf("wire: Limits.SmallWindow is %d; it must be between %d and 1 GiB", l.SmallWindow, smallWindowMin)
	case int64(l.LargeWindow) < largeWindowMin(int64(l.Body)) || l.LargeWindow > 1<<30:
		return l, fmt.Errorf("wire: Limits.LargeWindow is %d; it must be between %d and 1 GiB", l.LargeWindow, largeWindowMin(int64(l.Body)))
	case min(l.Requests, l.Maintenances) < 1 || max(l.Requests, l.Maintenances) > slotsMax:
		return l, fmt.Errorf("wire: Limits.Requests and Maintenances are %d and %d, between 1 and %d they may be", l.Requests, l.Maintenances, slotsMax)
	case min(l.Handshake, l.Ping, l.Stall, l.Whole) <= 0:
		return l, fmt.Errorf("wire: Limits.Handshake, Ping, Stall and Whole are %v, %v, %v and %v; all must be over 0", l.Handshake, l.Ping, l.Stall, l.Whole)
	}
	return l, nil
}

// announce puts the limits into a preface.
func (l *Limits) announce(p *preface) {
	for prio := range priorities {
		p.windows[2*prio], p.windows[2*prio+1] = uint32(l.SmallWindow), uint32(l.LargeWindow)
	}
	p.slots = [priorities]uint32{uint32(l.Requests), uint32(l.Maintenances)}
	p.bodyMax = uint32(l.Body)
	p.newest, p.oldest = versionNewest, versionOldest
}
