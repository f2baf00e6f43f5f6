package control

import (
	"context"

	"github.com/google/uuid"
)

// GroupsClient speaks to the `ovs up` of one data directory about its Arakoon groups. Its
// methods are those of Arakoon. It is safe for concurrent use.
type GroupsClient struct{ of *Client }

// OfGroups is the client for the groups of the `ovs up` that a client speaks to.
func OfGroups(c *Client) *GroupsClient { return &GroupsClient{c} }

// Groups says how all groups are, or the one that is named.
func (g *GroupsClient) Groups(ctx context.Context, group string) ([]ArakoonGroup, error) {
	c := g.of
	return call[[]ArakoonGroup](ctx, c, "arakoon/status", groupRequest{group}, nil)
}

// Get returns a key and its value.
func (g *GroupsClient) Get(ctx context.Context, r KeyRead) (KeyValue, error) {
	c := g.of
	return call[KeyValue](ctx, c, "arakoon/get", r, nil)
}

// Exists says whether a key is there.
func (g *GroupsClient) Exists(ctx context.Context, r KeyRead) (bool, error) {
	c := g.of
	return call[bool](ctx, c, "arakoon/exists", r, nil)
}

// Range returns a page of keys.
func (g *GroupsClient) Range(ctx context.Context, r KeyRange) (KeyPage, error) {
	c := g.of
	return call[KeyPage](ctx, c, "arakoon/range", r, nil)
}

// Count counts keys.
func (g *GroupsClient) Count(ctx context.Context, r KeyRange) (uint64, error) {
	c := g.of
	return call[uint64](ctx, c, "arakoon/count", r, nil)
}

// Write changes a key, or all with a prefix.
func (g *GroupsClient) Write(ctx context.Context, w KeyWrite) (KeyWritten, error) {
	c := g.of
	return call[KeyWritten](ctx, c, "arakoon/write", w, nil)
}

// Watch calls fn with what happens to keys, until fn fails, with that error, or ctx ends.
func (g *GroupsClient) Watch(ctx context.Context, w KeyWatch, fn func(KeyEvents) error) error {
	c := g.of
	_, err := callStream[KeyEvents, done](ctx, c, "arakoon/watch", w, fn)
	return err
}

// Leases returns all leases of a group that are held, by name.
func (g *GroupsClient) Leases(ctx context.Context, group string) ([]ArakoonLease, error) {
	c := g.of
	return call[[]ArakoonLease](ctx, c, "arakoon/leases", groupRequest{group}, nil)
}

// Transfer gives the lead to another member, the best one if to is 0, and returns who leads.
func (g *GroupsClient) Transfer(ctx context.Context, group string, to uint64) (uint64, error) {
	c := g.of
	return call[uint64](ctx, c, "arakoon/transfer", transferRequest{group, to}, nil)
}

// Levels says which levels the groups have, and what their members know.
func (g *GroupsClient) Levels(ctx context.Context) (ArakoonLevels, error) {
	c := g.of
	return call[ArakoonLevels](ctx, c, "arakoon/levels", struct{}{}, nil)
}

// Raise brings a group to a level, all groups if group is "", for good; level 0 is the newest
// that all members know.
func (g *GroupsClient) Raise(ctx context.Context, group string, level uint32) (ArakoonLevels, error) {
	c := g.of
	return call[ArakoonLevels](ctx, c, "arakoon/raise", raiseRequest{group, level}, nil)
}

// Zones says how the groups stand to the zones that must hold everything.
func (g *GroupsClient) Zones(ctx context.Context) ([]ArakoonZones, error) {
	c := g.of
	return call[[]ArakoonZones](ctx, c, "arakoon/zones", struct{}{}, nil)
}

// RequireZones sets in how many zones all groups must hold everything, 1 for no requirement.
func (g *GroupsClient) RequireZones(ctx context.Context, zones int) ([]ArakoonZones, error) {
	c := g.of
	return call[[]ArakoonZones](ctx, c, "arakoon/require-zones", zonesRequest{zones}, nil)
}

// Lose says what AssertZones would give up, and changes nothing.
func (g *GroupsClient) Lose(ctx context.Context, zones int) (ArakoonLoss, error) {
	c := g.of
	return call[ArakoonLoss](ctx, c, "arakoon/loss", zonesRequest{zones}, nil)
}

// AssertZones lowers it, on the word of a person that the other zones are off for good, and ends
// the membership of their hosts: those that the person was shown.
func (g *GroupsClient) AssertZones(ctx context.Context, zones int, lost []uuid.UUID) (ArakoonLoss, error) {
	c := g.of
	return call[ArakoonLoss](ctx, c, "arakoon/recover", assertRequest{zones, lost}, nil)
}

// Hash compares the states of a group's members.
func (g *GroupsClient) Hash(ctx context.Context, group string) (ArakoonHashes, error) {
	c := g.of
	return call[ArakoonHashes](ctx, c, "arakoon/hash", groupRequest{group}, nil)
}

// Backup calls write with a backup of a group, piece by piece; of all groups as they were at
// one instant, one after the other, if group is "".
func (g *GroupsClient) Backup(ctx context.Context, group string, write func(group string, piece []byte) error) ([]ArakoonBackup, error) {
	c := g.of
	return callStream[backupPiece, []ArakoonBackup](ctx, c, "arakoon/backup", groupRequest{group}, func(p backupPiece) error { return write(p.Group, p.Piece) })
}
