package members

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// learners are the learners of groups that are led here, by their hosts: which of their groups
// are in sync, and which are behind.
func learners(m *Members) (inSync, behind map[uuid.UUID][]string) {
	inSync, behind = map[uuid.UUID][]string{}, map[uuid.UUID][]string{}
	r := m.file.Now()
	for _, name := range m.Names() {
		n := m.all[name].store.leading()
		if n == nil {
			continue
		}
		s := n.Status()
		for _, id := range s.InSync {
			if h, known := r.Place(name, id); known {
				inSync[h.ID] = append(inSync[h.ID], name)
			}
		}
		for _, id := range s.Behind {
			if h, known := r.Place(name, id); known {
				behind[h.ID] = append(behind[h.ID], name)
			}
		}
	}
	return inSync, behind
}

// mirrored says in words whether another host holds all that is answered here.
func mirrored(m *Members) string {
	inSync, behind := learners(m)
	var said []string
	for h, list := range inSync {
		if len(behind[h]) == 0 && len(list) == len(m.file.Now().Groups) {
			said = append(said, fmt.Sprintf("host %s holds all that was answered (`ovs recover`)", h))
		}
	}
	for h, list := range behind {
		said = append(said, fmt.Sprintf("HOST %s DOES NOT HOLD ALL: if this host is lost now, what it lacks of %s is lost", h, strings.Join(list, ", ")))
	}
	if len(said) == 0 {
		return ""
	}
	slices.Sort(said)
	return "; " + strings.Join(said, "; ")
}

// InSync says in words whether a host holds all that is answered here: "in sync",
// "NOT IN SYNC", or "" where that is not asked of it, or not known here.
func InSync(m *Members, host uuid.UUID) string {
	inSync, behind := learners(m)
	switch {
	case len(behind[host]) > 0:
		return "NOT IN SYNC: " + strings.Join(behind[host], ", ")
	case len(inSync[host]) > 0:
		return "in sync"
	}
	return ""
}
