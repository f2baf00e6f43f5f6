package groups

import (
	"bytes"
	"context"
	"fmt"

	"openvstorage/arakoon"
)

// Witness has a group remember how far something has got that lies outside of the
// groups, as of each claim: what is found to be less far at the next start is an
// older copy.
type Witness struct {
	Group string        // that remembers
	Name  string        // what
	Value func() []byte // how far it is; nil: nothing is known yet, and what is remembered stays
	// Follows: the value follows each claim, so that its change alone is no reason
	// for another, but for the last one.
	Follows bool
}

// witnessKey is where a group remembers.
func witnessKey(name string) []byte { return []byte("host/witness/" + name) }

// Witnessed is what a group remembered last, nil if nothing.
func (g *Groups) Witnessed(ctx context.Context, group, name string) ([]byte, error) {
	values, err := g.nodes[group].MultiGet(ctx, arakoon.Consistent, witnessKey(name))
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	return values[0], nil
}

// Watch adds a witness. Its value goes with each claim from the next one on; that
// it has changed is a reason to claim.
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

// ask asks all witnesses, and reports whether one has changed, which is a reason to
// claim; with followers, those that follow each claim too. g.mu is held.
func (g *Groups) ask(followers bool) (changed bool) {
	for _, w := range g.witnesses {
		if w.now = w.Value(); w.now != nil && !bytes.Equal(w.now, w.told) && (followers || !w.Follows) {
			changed = true
		}
	}
	return changed
}
