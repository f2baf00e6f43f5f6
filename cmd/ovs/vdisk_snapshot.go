package main

import "github.com/spf13/cobra"

// snapshotCommands are the commands of `ovs vdisk snapshot`.
type snapshotCommands struct{ *app }

func (cmds snapshotCommands) group() *cobra.Command {
	return group("snapshot", "take, list and remove snapshots",
		cmds.create(), cmds.list(), cmds.delete())
}
