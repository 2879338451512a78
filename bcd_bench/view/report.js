// ---- the tables of several suites -------------------------------------------------------------------------------
document.title = data.title;
$("title").textContent = data.title;
$("subtitle").textContent = `page by bcd-bench ${data.bcd_bench}`;
$("leaderboard").append(
  ...(data.tables.length ? data.tables.flatMap((table) => leaderboard(table)) : [make("p", {}, "No records to report.")]));
