package attach

import (
	"context"
	"slices"
	"strings"
	"time"

	"openvstorage/blockdev"
)

// usersWait is how long a detach waits for whoever is about to close the device:
// programs look at a disk after it was written.
const usersWait = 2 * time.Second

// lastingUsers are those that use a device and do not end within wait.
func lastingUsers(ctx context.Context, device string, wait time.Duration) []blockdev.User {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		users := blockdev.Users(device)
		lasts := slices.ContainsFunc(users, func(u blockdev.User) bool { return !u.Passing })
		if lasts || len(users) == 0 {
			return users
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return users
		}
	}
}

// usersText lists users in a message.
func usersText(users []blockdev.User) string {
	texts := make([]string, len(users))
	for i, u := range users {
		texts[i] = u.What
	}
	return strings.Join(texts, ", ")
}
