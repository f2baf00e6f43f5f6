package main

import (
	"time"

	"openvstorage/scripts/cpu"
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
	if s.attacker, err = cpu.Own(); err != nil {
		return s, err
	}
	if s.guest, err = cpu.Children(); err != nil {
		return s, err
	}
	if s.server, err = proc.CPU(); err != nil {
		return s, err
	}
	machine, err := cpu.Machine()
	s.machine = machine.Busy + machine.Stolen // what others have, on this machine or beside it
	return s, err
}

func (s spent) since(before spent) used {
	share := func(now, then time.Duration) float64 {
		return (now - then).Seconds() / max(1e-3, s.at.Sub(before.at).Seconds())
	}
	u := used{attacker: share(s.attacker, before.attacker), server: share(s.server, before.server), guest: share(s.guest, before.guest)}
	u.others = max(0, share(s.machine, before.machine)-u.attacker-u.server-u.guest)
	return u
}
