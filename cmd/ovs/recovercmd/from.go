package recovercmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/arakooncmd"
)

// What --from may say.
const (
	fromSurvivor = "surviving-member"
	fromBackup   = "backup"
	fromDisks    = "disks"
	fromNothing  = "nothing"
)

const fromHelp = `
With --from backup BACKUPDIR the groups of a data directory that has lost them all are made
of a backup: see ovs restore metadata, which does the same. One group alone is not made of
a backup, as groups name each other's records.

--from disks and --from nothing are refused, with the reason: see docs/operations.md.`

// from is where a recovery takes a group from.
type from struct {
	what          string
	withoutBuffer bool
	disks         []string
}

func (f *from) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.what, "from", fromSurvivor, "go on with `what` there is: surviving-member, backup, disks or nothing")
	c.Flags().BoolVar(&f.withoutBuffer, "without-buffer", false, "with --from backup: go on without what vDisks' local files have beyond the backend")
	c.Flags().StringArrayVar(&f.disks, "asd", nil, "with --from backup: a disk of the backend is in this `directory`, not where the backup has it")
	_ = c.MarkFlagDirname("asd")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]cobra.Completion{fromSurvivor, fromBackup, fromDisks, fromNothing}, cobra.ShellCompDirectiveNoFileComp))
}

// whyNot says of each group why nothing can be made of what disks have, and why none is begun
// with nothing.
var whyNot = map[string]string{
	"abm":      "disks have their own identities, and neither their numbers nor the names of namespaces, by which fragments are found",
	"nsm-0":    "this release writes no recovery records beside fragments, and a fragment does not say of what object it is a part",
	"registry": "catalogs of vDisks do not have their names",
}

// recoverFrom recovers from something else than a member that survives.
func (cmd *command) recoverFrom(c *cobra.Command, args []string) error {
	switch cmd.from.what {
	case fromBackup:
		if len(args) != 1 {
			return cmd.Usage("%s --from backup wants BACKUPDIR alone, as all groups are made of it: they name each other's records", c.CommandPath())
		}
		return arakooncmd.Restore(cmd.Tools, c, args[0], cmd.from.withoutBuffer, cmd.from.disks)
	case fromDisks:
		var why []string
		for _, g := range []string{"abm", "nsm-0", "registry"} {
			if len(args) == 0 || slices.Contains(args, g) {
				why = append(why, g+": "+whyNot[g])
			}
		}
		if len(why) == 0 {
			return fmt.Errorf("no group of %s is known", strings.Join(args, ", "))
		}
		return fmt.Errorf("no group can be made of what disks have; nothing was changed. %s", strings.Join(why, "; "))
	case fromNothing:
		return fmt.Errorf("no group is begun with nothing where there was one; nothing was changed. The others name what it held, and disks what they do not know: give ovs up a new data directory and other disks, and leave these as they are until there is a backup, or a member")
	}
	return cmd.Usage("%s: --from is surviving-member, backup, disks or nothing, not %q", c.CommandPath(), cmd.from.what)
}
