// Package cpu tells how much time the processors have spent, and for what. Benchmarks
// and attacks compare what they used with what the whole machine used.
package cpu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Tick is the unit in which the kernel counts a machine's times: USER_HZ, 100 a second
// on every Linux.
const Tick = 10 * time.Millisecond

// Times are those of all processors of the machine together, since it was started.
type Times struct {
	Busy   time.Duration // at work for anybody, the kernel's own threads among them
	Stolen time.Duration // a hypervisor had given the processor to others; not in Busy
	Total  time.Duration // with those that were idle
}

// Machine reads the times of the machine.
func Machine() (Times, error) {
	p, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Times{}, err
	}
	t, err := parse(string(p))
	if err != nil {
		return Times{}, fmt.Errorf("/proc/stat: %w", err)
	}
	return t, nil
}

// parse reads the first line: "cpu" and the ticks of user, nice, system, idle, waiting
// for I/O, interrupts, soft interrupts, stolen, and two of guests of this machine. The
// ticks of guests are already counted in user and nice.
func parse(stat string) (t Times, err error) {
	const (
		idle   = 3
		iowait = 4
		steal  = 7
		guests = 8
	)
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 1+guests || fields[0] != "cpu" {
		return t, fmt.Errorf("it begins with %q", line)
	}
	for i, field := range fields[1 : 1+guests] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return Times{}, err
		}
		spent := time.Duration(n) * Tick
		t.Total += spent
		switch i {
		case idle, iowait:
		case steal:
			t.Stolen += spent
		default:
			t.Busy += spent
		}
	}
	return t, nil
}

// Sub returns the times since earlier ones.
func (t Times) Sub(before Times) Times {
	return Times{t.Busy - before.Busy, t.Stolen - before.Stolen, t.Total - before.Total}
}

// Own is what this process has used.
func Own() (time.Duration, error) { return used(unix.RUSAGE_SELF) }

// Children is the processor time of the child processes that have ended and that this
// process has waited for.
func Children() (time.Duration, error) { return used(unix.RUSAGE_CHILDREN) }

func used(who int) (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
