package faults

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// registerModel is one register. An operation whose outcome is unknown returns at the end of time, so it may take
// effect at any later moment; a swap may then also find another value, and do nothing.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		return partition(history, func(input any) int { return input.(RegisterOp).Key })
	},
	Init: func() any { return 0 },
	Step: func(state, input, _ any) (bool, any) {
		op := input.(RegisterOp)
		held := state.(int)
		switch op.Kind {
		case Read:
			return op.Value == held, held
		case Write:
			return true, op.Value
		}
		matches := held == op.Expected
		if op.Outcome == Done && op.Swapped != matches {
			return false, held
		}
		if matches {
			return true, op.Value
		}
		return true, held
	},
}

func partition(history []porcupine.Operation, key func(any) int) [][]porcupine.Operation {
	byKey := map[int][]porcupine.Operation{}
	for _, op := range history {
		byKey[key(op.Input)] = append(byKey[key(op.Input)], op)
	}
	parts := make([][]porcupine.Operation, 0, len(byKey))
	for _, part := range byKey {
		parts = append(parts, part)
	}
	return parts
}

// checkRegisters wants one order of all operations that explains every answer. What was refused did not happen, so a
// value of it that was read is an error as well. Reads without an answer say nothing.
func checkRegisters(ops []RegisterOp, patience time.Duration) []string {
	var history []porcupine.Operation
	for _, op := range ops {
		if op.Outcome == Refused || (op.Kind == Read && op.Outcome != Done) {
			continue
		}
		end := op.Return
		if op.Outcome == Unknown {
			end = never
		}
		history = append(history, porcupine.Operation{Input: op, Call: op.Call, Return: end})
	}
	var faults []string
	for _, part := range registerModel.Partition(history) {
		result := porcupine.CheckOperationsTimeout(registerModel, part, patience)
		key := part[0].Input.(RegisterOp).Key
		switch result {
		case porcupine.Illegal:
			faults = append(faults, fmt.Sprintf("register %d is not linearizable:\n%s", key, describe(part)))
		case porcupine.Unknown:
			faults = append(faults, fmt.Sprintf("register %d was not checked within %s (%d operations)", key, patience,
				len(part)))
		}
	}
	return faults
}

func describe(part []porcupine.Operation) string {
	text := ""
	for _, each := range part {
		op := each.Input.(RegisterOp)
		text += fmt.Sprintf("  %10d-%-10d %s %s\n", op.Call/1000, op.Return/1000, op.Outcome, op.what())
	}
	return text
}

func (op RegisterOp) what() string {
	switch op.Kind {
	case Read:
		return fmt.Sprintf("read %d", op.Value)
	case Write:
		return fmt.Sprintf("write %d", op.Value)
	}
	return fmt.Sprintf("swap %d for %d: %v", op.Expected, op.Value, op.Swapped)
}
