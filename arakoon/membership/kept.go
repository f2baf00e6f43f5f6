package membership

import (
	"bytes"
	"context"
	"fmt"

	"openvstorage/arakoon/roster"
)

// Kept is the Rosters of a roster that is kept in a store.
type Kept struct{ roster.Book }

var _ Rosters = Kept{}

// Write implements Rosters.
func (k Kept) Write(ctx context.Context, was, now roster.Group) error {
	return k.Change(ctx, func(r *roster.Roster) error {
		is, _ := r.Group(was.Name)
		if !bytes.Equal(is.Append(nil), was.Append(nil)) {
			return fmt.Errorf("group %s: %w", was.Name, ErrChanged)
		}
		r.PutGroup(now)
		return nil
	})
}
