package maintenance

import (
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
	"openvstorage/alba/policy"
)

// passes orders the repair of all objects of all namespaces by what each may still lose,
// without a list of them: pass after pass goes through the same objects, and each repairs
// those whose turn it is. There are as many passes as there are kinds of safety among the
// objects to be repaired, which the widest policy bounds, and memory for two of them.
type passes struct {
	done *policy.Safety // what is as safe as that, or less, had its turn; nil: nothing had
	turn policy.Safety  // of this pass: what is as safe as that, or less, is repaired now
	next policy.Safety  // the least that was put off in this pass
	more bool           // something was put off
}

// firstPass repairs what the next death may destroy.
func firstPass() passes { return passes{turn: policy.Safety{}} }

// sooner reports whether an object with safety a is repaired before one with b. What cannot be
// read now comes last: only disks that come back can help it.
func sooner(a, b policy.Safety) bool {
	if lostA, lostB := a == policy.Lost, b == policy.Lost; lostA || lostB {
		return lostB && !lostA
	}
	return a.Less(b)
}

// now reports whether it is an object's turn. If not, it had its turn, or a later pass has it.
// What came into danger behind an earlier pass waits for the next survey.
func (p *passes) now(s policy.Safety) bool {
	if p.done != nil && !sooner(*p.done, s) {
		return false
	}
	if !sooner(p.turn, s) {
		return true
	}
	if !p.more || sooner(s, p.next) {
		p.next, p.more = s, true
	}
	return false
}

// advance begins the next pass, and reports whether there is one.
func (p *passes) advance() bool {
	if !p.more {
		return false
	}
	*p = passes{done: new(p.turn), turn: p.next}
	return true
}

// ranker says how safe objects are, as the disks are now. It is for one goroutine.
type ranker struct {
	fleet *fleet.Fleet
	at    []policy.Where
}

// safety is what an object may still lose. Fragments on disks that are away do not count,
// those on disks that are being drained do.
func (r *ranker) safety(o *nsm.Object) policy.Safety {
	var worst policy.Safety
	for i := range o.Chunks {
		r.at = r.at[:0]
		for _, f := range o.Chunks[i].Fragments {
			if d := r.fleet.Disk(f.OSD); d != nil && f.OSD != policy.None && d.Missing() == nil {
				r.at = append(r.at, policy.Where{OSD: f.OSD, Node: d.Node, Zone: d.Zone()})
			}
		}
		if s := policy.SafetyOf(int(o.Policy.K), r.at); i == 0 {
			worst = s
		} else {
			worst = worst.Worse(s)
		}
	}
	return worst
}
