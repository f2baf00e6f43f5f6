package groups

import (
	"bytes"
	"context"
	"fmt"

	"openvstorage/arakoon"
)

// Witness has a group remember, at each claim, how far something outside of the groups has
// got. If the next start finds that it has got less far, it is an older copy.
type Witness struct {
	Group string        // that remembers
	Name  string        // of what is remembered
	Value func() []byte // how far it has got; nil if that is not known yet: the group keeps what it has
	// Follows says that each claim changes the value. Such a change is then no reason for
	// another claim, except for the last one.
	Follows bool
}

// witnessPrefix begins the keys in which a group remembers.
const witnessPrefix = "host/witness/"

// witnessKey is where a group remembers.
func witnessKey(name string) []byte { return []byte(witnessPrefix + name) }

// Witnessed is what a group remembered last, nil if nothing.
func (g *Groups) Witnessed(ctx context.Context, group, name string) ([]byte, error) {
	values, err := g.members.get(group).store().MultiGet(ctx, arakoon.Consistent, witnessKey(name))
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	return values[0], nil
}

// Watch adds a witness. The next claim and all later ones store its value, and a change of
// the value is a reason to claim.
func (g *Groups) Watch(w Witness) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.witnesses = append(g.witnesses, &watched{Witness: w})
}

// watched is a witness and what its group was told last.
type watched struct {
	Witness
	told []byte
	now  []byte // for the claim that is under way
}

// ask asks all witnesses for their values, and reports whether one has changed in a way
// that is a reason to claim; followers says that those with Follows count too. g.mu is
// held.
func (g *Groups) ask(followers bool) (changed bool) {
	for _, w := range g.witnesses {
		if w.now = w.Value(); w.now != nil && !bytes.Equal(w.now, w.told) && (followers || !w.Follows) {
			changed = true
		}
	}
	return changed
}
