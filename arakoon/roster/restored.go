package roster

import (
	"math"

	"github.com/google/uuid"
)

// restoreGap is how far a restored roster's numbers go on behind those of the backup: so many
// changes may have been made since, and so many numbers of members given away.
const restoreGap = 1 << 20

// Restored makes the roster that of a cluster whose groups were made anew on one host, each
// with one member and in a later life. What was given away since the backup is passed over:
// revisions, and numbers of members. Other hosts are to get no members: what is in their
// directories is of an earlier life. Nothing is required of zones, as there is one member.
//
// It returns the number of each group's member: the host's own, or one that was never used.
func (r *Roster) Restored(self uuid.UUID, life uint64) map[string]uint64 {
	numbers := make(map[string]uint64)
	r.Revision += restoreGap
	for i := range r.Hosts {
		r.Hosts[i].Leaves = r.Hosts[i].ID != self
		if !r.Hosts[i].Leaves {
			r.Hosts[i].Maintenance = false // what is led there can go nowhere
		}
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		m, found := g.MemberOn(self)
		g.Next = min(g.Next, math.MaxUint64-2*restoreGap) + restoreGap
		if !found {
			m = Member{ID: g.Next, Host: self}
			g.Next++
		}
		g.Life, g.RequireZones, g.Members = max(g.Life+1, life), 0, []Member{m}
		numbers[g.Name] = m.ID
	}
	return numbers
}

// Values are the keys of the config group that hold the roster, and their values. The roster
// must be valid.
func (r *Roster) Values() map[string][]byte {
	all := map[string][]byte{revisionKey: appendRevision(nil, r.Revision)}
	for _, h := range r.Hosts {
		all[string(h.Key())] = h.Append(nil)
	}
	for _, g := range r.Groups {
		all[string(g.Key())] = g.Append(nil)
	}
	return all
}

// TakeAny is Take of any key of the config group: of those that hold no roster it takes
// nothing. Sort and Check are to follow the last.
func (r *Roster) TakeAny(key, value []byte) (err error) {
	switch {
	case len(key) < len(Prefix) || string(key[:len(Prefix)]) != Prefix:
	case string(key) == revisionKey:
		r.Revision, err = decodeRevision(value)
	default:
		err = r.Take(key, value)
	}
	return err
}
