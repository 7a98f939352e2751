// Reads operations on registers as JSON lines from standard input and says whether they are linearizable:
// {"key", "client", "call", "return", "op": "read|write|cas", "old", "new", "unknown"}. One JSON object comes out.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Key     string  `json:"key"`
	Client  int     `json:"client"`
	Call    int64   `json:"call"`
	Return  int64   `json:"return"`
	Op      string  `json:"op"`
	Old     *string `json:"old"`
	New     *string `json:"new"`
	Unknown bool    `json:"unknown"`
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// The state is the value, "" where the key is absent. An unknown operation may have happened or not: then its state is
// whatever fits, which Porcupine is told by letting it return at the end of time with an output that nobody looks at.
func step(state, input, _ interface{}) (bool, interface{}) {
	value, op := state.(string), input.(operation)
	switch op.Op {
	case "read":
		return text(op.New) == value, value
	case "write":
		return true, text(op.New)
	default:
		if text(op.Old) == value {
			return true, text(op.New)
		}
		return op.Unknown, value
	}
}

func main() {
	byKey := map[string][]porcupine.Operation{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<20)
	count := 0
	for in.Scan() {
		var op operation
		if err := json.Unmarshal(in.Bytes(), &op); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if op.Unknown {
			op.Return = math.MaxInt64
		}
		count++
		byKey[op.Key] = append(byKey[op.Key], porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: op.Return})
	}
	model := porcupine.Model{Init: func() interface{} { return "" }, Step: step}
	verdicts := map[porcupine.CheckResult]int{}
	wrong := []string{}
	for key, ops := range byKey {
		result := porcupine.CheckOperationsTimeout(model, ops, 20*time.Second)
		verdicts[result]++
		if result == porcupine.Illegal {
			wrong = append(wrong, key)
		}
	}
	out := map[string]interface{}{"operations": count, "keys": len(byKey), "illegal": wrong, "undecided": verdicts[porcupine.Unknown]}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		os.Exit(2)
	}
}
