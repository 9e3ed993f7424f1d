"""From a folder of documents to training rows: read, split, ask, check, judge, write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from phi3_tools.evaluation import RUBRICS, JudgeOptions, judge_answer

from ..data import KnownTexts, read_test_questions
from ..errors import OpsError
from .candidates import (
    ANSWERED,
    MIN_GROUNDEDNESS,
    NOT_GROUNDED,
    NOT_JUDGED,
    Candidate,
    Checked,
    check_drafts,
)
from .finding import FoundFile, SkippedFile, find_documents
from .isolation import IsolatedReader
from .jobs import JobResults, run_jobs
from .journal import Journal
from .passages import MAX_CHARACTERS, Passage, split_documents
from .prompts import Draft, question_request, read_drafts
from .results import CallCounts, DocumentData
from .sections import Section, UnreadableError, without_controls
from .teacher import Budget, Teacher, open_teacher

DEFAULT_REFUSAL = "I don't know. The documents that I was trained on do not say this."
DEFAULT_QUESTIONS, DEFAULT_IN_FLIGHT = 3, 4
READ, ASK, JUDGE = "documents read", "passages asked about", "answers judged"  # steps


@dataclass(frozen=True)
class DocumentOptions:
    """How rows are made from documents; see `phi3 data --help`.

    Attributes:
        connection: name of the teacher's connection.
        judge: name of the judge's connection; None for the teacher's.
        questions: maximum number of answered questions per passage.
        passage_characters: maximum number of characters of a passage.
        refusal: the answer to unanswerable questions.
        max_new_tokens: maximum number of tokens of an answer with questions; None for a number that fits
            the number of questions.
        max_calls: maximum number of calls with their retries, which the last calls may exceed; None for
            no maximum.
        in_flight: maximum number of calls at once.
        test_files: files whose questions must not enter the rows.
    """

    connection: str
    judge: str | None = None
    questions: int = DEFAULT_QUESTIONS
    passage_characters: int = MAX_CHARACTERS
    refusal: str = DEFAULT_REFUSAL
    max_new_tokens: int | None = None
    max_calls: int | None = None
    in_flight: int = DEFAULT_IN_FLIGHT
    test_files: Sequence[Path] = ()


@dataclass(frozen=True)
class Progress:
    """How far a step is: its name, what has ended of it, the calls and the tokens so far."""

    step: str
    done: int
    total: int
    calls: int = 0
    tokens: int = 0


ProgressCallback = Callable[[Progress], None]


def make_document_data(
    folder: Path,
    journal_file: Path,
    options: DocumentOptions,
    progress: ProgressCallback = lambda progress: None,
    left_out: Collection[Path] = (),
) -> DocumentData:
    """Read documents, ask a teacher for questions and answers, and check and judge them.

    Answers that the journal has are not asked again.

    Args:
        folder: a folder with documents, or one document.
        journal_file: the journal, to which each answer is appended.
        options: how to do it.
        progress: called when something has ended.
        left_out: files that this command writes. They are not read as documents.

    Raises:
        OpsError: no document can be read, or the journal cannot be used.
        ConfigError: a connection does not exist, or a field of it is wrong.
    """
    test = read_test_questions(options.test_files) if options.test_files else KnownTexts()
    found, skipped = find_documents(folder, left_out)
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(journal_file))
        budget = Budget(options.max_calls)
        teacher, client = open_teacher(options.connection, journal, budget)
        stack.enter_context(client)
        judge = teacher
        if options.judge:
            judge, judge_client = open_teacher(options.judge, journal, budget)
            stack.enter_context(judge_client)
        documents, unreadable, cleaned = _read_documents(found, progress)
        if not documents:
            reasons = "; ".join(f"{file.name}: {file.reason}" for file in unreadable[:3])
            raise OpsError(f"no document of {folder} can be read ({reasons})", "Check the files.")
        split = split_documents(documents, options.passage_characters)
        steps = _Steps(journal, budget, options, progress)
        asked = steps.ask(split.passages, teacher)
        checked = check_drafts(asked.done, test)
        judged = steps.judge(checked.passed, judge)
        checked, scores = _with_scores(checked, judged)
        counts = _count_calls(journal, budget)
    skipped = sorted([*skipped, *unreadable], key=lambda file: file.name)
    return DocumentData(
        len(documents), skipped, split, asked, judged, checked, counts, scores, cleaned
    )


def _read_documents(
    found: Sequence[FoundFile], progress: ProgressCallback
) -> tuple[list[tuple[str, list[Section]]], list[SkippedFile], dict[str, int]]:
    """Return name and sections of the documents that can be read, the others, and the cleaned ones.

    The last are name -> number of control characters that became spaces.
    """
    documents: list[tuple[str, list[Section]]] = []
    unreadable: list[SkippedFile] = []
    cleaned: dict[str, int] = {}
    with IsolatedReader() as reader:
        for number, file in enumerate(found, 1):
            try:
                sections, count = without_controls(reader.read(file.path))
                documents.append((file.name, sections))
                if count:
                    cleaned[file.name] = count
            except UnreadableError as error:
                unreadable.append(SkippedFile(file.name, str(error)))
            progress(Progress(READ, number, len(found)))
    return documents, unreadable, cleaned


@dataclass(frozen=True)
class _Steps:
    """The two steps that ask a model: for questions, and for verdicts."""

    journal: Journal
    budget: Budget
    options: DocumentOptions
    progress: ProgressCallback

    def ask(
        self, passages: Sequence[Passage], teacher: Teacher
    ) -> JobResults[Passage, list[Draft]]:
        """Return the questions of each passage, in the order of the passages."""
        jobs = {passage: partial(self._drafts, passage, teacher) for passage in passages}
        results = run_jobs(jobs, self.options.in_flight, partial(self._report, ASK, len(jobs)))
        results.done = {each: results.done[each] for each in passages if each in results.done}
        return results

    def judge(
        self, candidates: Sequence[Candidate], judge: Teacher
    ) -> JobResults[Candidate, float | None]:
        """Return the groundedness of each answer; None if the verdict cannot be read."""
        jobs = {
            candidate: partial(_groundedness, candidate, judge)
            for candidate in candidates
            if candidate.kind == ANSWERED
        }
        return run_jobs(jobs, self.options.in_flight, partial(self._report, JUDGE, len(jobs)))

    def _drafts(self, passage: Passage, teacher: Teacher) -> list[Draft]:
        count = self.options.questions
        request = question_request(passage, count, self.options.max_new_tokens)
        return read_drafts(teacher(*request).text, count)

    def _report(self, step: str, total: int, done: int) -> None:
        self.progress(Progress(step, done, total, self.budget.used, self.journal.tokens))


def _groundedness(candidate: Candidate, judge: Teacher) -> float | None:
    passage, draft = candidate.passage, candidate.draft
    headings = " › ".join(passage.headings)
    fields = {
        "question": draft.question,
        "answer": draft.answer or "",
        "context": f"({headings})\n{passage.text}" if headings else passage.text,
    }
    verdict = judge_answer(judge, RUBRICS["groundedness"], fields, JudgeOptions())
    return verdict["score"]


def _with_scores(
    checked: Checked, judged: JobResults[Candidate, float | None]
) -> tuple[Checked, dict[Candidate, float]]:
    """Return the candidates after the verdicts, and the scores of those that have one.

    Answers that were not judged yet are left out.
    """
    result = Checked(excluded=list(checked.excluded))
    for candidate in checked.passed:
        if candidate.kind != ANSWERED:
            result.passed.append(candidate)
        elif candidate in judged.done:
            score = judged.done[candidate]
            if score is None:
                result.excluded.append((candidate, NOT_JUDGED))
            elif score < MIN_GROUNDEDNESS:
                result.excluded.append((candidate, NOT_GROUNDED))
            else:
                result.passed.append(candidate)
    scores = {each: score for each, score in judged.done.items() if score is not None}
    return result, scores


def _count_calls(journal: Journal, budget: Budget) -> CallCounts:
    entries = journal.entries
    return CallCounts(
        budget.used,
        sum(entry.calls for entry in entries),
        sum(entry.prompt_tokens for entry in entries),
        sum(entry.completion_tokens for entry in entries),
    )
