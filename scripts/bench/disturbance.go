package main

import (
	"time"

	"openvstorage/scripts/cpu"
)

// spent is the CPU time that the machine and the measurement have spent.
type spent struct {
	machine cpu.Times
	ours    time.Duration
}

// spending looks at both. The measurement is this process, the programs that it
// has run and waited for, and the servers.
func spending(servers []*contender) (s spent, err error) {
	if s.machine, err = cpu.Machine(); err != nil {
		return s, err
	}
	for _, used := range []func() (time.Duration, error){cpu.Own, cpu.Children} {
		d, err := used()
		if err != nil {
			return s, err
		}
		s.ours += d
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

// others is the share of the CPUs that something else has used since before. The
// kernel's own threads are in it, which write back what the measurement dirties.
func (s spent) others(before spent) float64 {
	since := s.machine.Sub(before.machine)
	return float64(since.Busy-(s.ours-before.ours)) / float64(max(cpu.Tick, since.Total))
}
