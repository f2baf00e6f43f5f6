package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// spent is the CPU time that the machine and the measurement have spent.
type spent struct {
	machine cpu
	ours    time.Duration
}

// spending looks at both. The measurement is this process, the programs that it
// has run and waited for, and the servers.
func spending(servers []*contender) (s spent, err error) {
	if s.machine, err = readCPU(); err != nil {
		return s, err
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return s, err
		}
		s.ours += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for _, c := range servers {
		used, err := c.proc.CPU()
		if err != nil {
			return s, err
		}
		s.ours += used
	}
	return s, nil
}

// clockTick is the unit of /proc/stat: USER_HZ, 100 on every Linux.
const clockTick = 10 * time.Millisecond

// others is the share of the CPUs that something else has used since before. The
// kernel's own threads are in it, which write back what the measurement dirties.
func (s spent) others(before spent) float64 {
	total := time.Duration(s.machine.total-before.machine.total) * clockTick
	busy := time.Duration(s.machine.busy-before.machine.busy) * clockTick
	return float64(busy-(s.ours-before.ours)) / float64(max(clockTick, total))
}
