package main

import "github.com/spf13/cobra"

func (a *app) vdiskSnapshot() *cobra.Command {
	return group("snapshot", "take, list and remove snapshots",
		a.vdiskSnapshotCreate(), a.vdiskSnapshotList(), a.vdiskSnapshotDelete())
}
