package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/scripts/server"
)

// spent is the CPU time that the attacker (this process), the server, the guest
// (the programs that have ended) and the machine have used until now.
type spent struct {
	at                               time.Time
	attacker, server, guest, machine time.Duration
}

// used is how many CPUs they were busy with in a while.
type used struct{ attacker, server, guest, others float64 }

func spending(proc *server.Process) (s spent, err error) {
	s.at = time.Now()
	if s.attacker, err = rusage(unix.RUSAGE_SELF); err != nil {
		return s, err
	}
	if s.guest, err = rusage(unix.RUSAGE_CHILDREN); err != nil {
		return s, err
	}
	if s.server, err = proc.CPU(); err != nil {
		return s, err
	}
	s.machine, err = busy()
	return s, err
}

func rusage(who int) (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// busy is the time that all CPUs were busy, for whomever.
func busy() (time.Duration, error) {
	const clockTick = 10 * time.Millisecond // of /proc/stat, on every Linux
	p, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(p), "\n")
	var sum int64
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 3, 4: // idle, waiting for I/O
		case 8, 9: // of guests of this machine: is counted already
		default:
			sum += n
		}
	}
	return time.Duration(sum) * clockTick, nil
}

func (s spent) since(before spent) used {
	share := func(now, then time.Duration) float64 {
		return (now - then).Seconds() / max(1e-3, s.at.Sub(before.at).Seconds())
	}
	u := used{attacker: share(s.attacker, before.attacker), server: share(s.server, before.server), guest: share(s.guest, before.guest)}
	u.others = max(0, share(s.machine, before.machine)-u.attacker-u.server-u.guest)
	return u
}
